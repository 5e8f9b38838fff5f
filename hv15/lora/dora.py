"""DoRA (Liu et al. 2024): an adapter determines the direction of the changed weight, a vector its magnitude.

W' = (W + difference) * magnitude / norm of (W + difference), row by row or column by column. The difference W' - W
depends on W, so a DoRA can be applied and merged, but not converted to another layout.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hv15.errors import UserError
from hv15.lora.adapters import Adapter


@dataclass(frozen=True)
class Decomposed:
    """An adapter with a magnitude for each row (out, 1), or for each column (1, in)."""

    adapter: Adapter
    magnitude: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return self.adapter.shape

    def merged(self, weight: Tensor, multiplier: float) -> Tensor:
        """Return the changed weight; weight and result are (out, in), fp32, on one device.

        As in LyCORIS, the multiplier acts only on the magnitude: from that of weight + difference (0) to the trained
        magnitude (1).
        """
        changed = self.adapter.merged(weight, 1.0)
        along = 1 if self.magnitude.shape[1] == 1 else 0
        norm = torch.linalg.vector_norm(changed, dim=along, keepdim=True) + torch.finfo(changed.dtype).eps
        ratio: Tensor = self.magnitude.to(weight.device, torch.float32) / norm
        return changed * (multiplier * (ratio - 1) + 1)

    def to(self, device: torch.device) -> Decomposed:
        """Return the same change with its tensors on a device."""
        return replace(self, adapter=self.adapter.to(device), magnitude=self.magnitude.to(device))


def decomposed(module: str, adapter: Adapter, magnitude: Tensor) -> Decomposed:
    """Combine an adapter and its magnitude from a file.

    Args:
        module: its name, for messages.
        magnitude: (out, 1) or (1, in) as LyCORIS writes it, or (out) as PEFT does.

    Raises:
        UserError: the magnitude has another shape.
    """
    rows, columns = adapter.shape
    if magnitude.ndim == 1:
        magnitude = magnitude[:, None]
    if magnitude.shape not in ((rows, 1), (1, columns)) or not magnitude.is_floating_point():
        raise UserError(
            f"LoRA: the magnitude of {module} is {magnitude.dtype} {list(magnitude.shape)}; "
            f"expected one number for each of {rows} rows or {columns} columns",
            hint="export it again",
        )
    return Decomposed(adapter, magnitude)
