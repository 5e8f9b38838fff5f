"""DoRA (Liu et al. 2024): an adapter determines the direction of the changed weight, a vector its magnitude.

W' = (W + difference) * magnitude / norm. The difference W' - W depends on W.

- `Decomposed`: the norm is that of W + difference, by columns, as LyCORIS can train it. It can be applied and merged.
- `DecomposedRows`: the same by rows, as in the paper, LyCORIS and PEFT. It can be divided and joined by rows, but only
  PEFT's layouts take such norms.
- `ScaledRows`: the norm is that of W, by rows. ComfyUI computes it for every magnitude of rows, so hv15 trains it.
  Because the norms do not change, it costs little more than its adapter, and it is converted like that, row by row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hv15.errors import UserError
from hv15.lora.adapters import Adapter, RowChange
from hv15.lora.kinds import BASE_MAGNITUDE, MAGNITUDE

EPS = torch.finfo(torch.float32).eps
"""Added to norms, as LyCORIS and ComfyUI do."""


@dataclass(frozen=True)
class Decomposed:
    """An adapter with a magnitude for each column, (1, in), relative to the norm of the changed weight's column."""

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
        return _with_magnitudes(changed, self.magnitude, torch.linalg.vector_norm(changed, dim=0) + EPS, multiplier)

    def to(self, device: torch.device) -> Decomposed:
        """Return the same change with its tensors on a device."""
        return replace(self, adapter=self.adapter.to(device), magnitude=self.magnitude.to(device))


@dataclass(frozen=True)
class DecomposedRows(RowChange):
    """An adapter with a magnitude for each row, (out, 1), relative to the norm of the changed weight's row."""

    adapter: Adapter
    magnitude: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return self.adapter.shape

    def rows(self, index: slice | Tensor) -> DecomposedRows:
        return DecomposedRows(self.adapter.rows(index), self.magnitude[index].contiguous())

    def tensors(self) -> dict[str, Tensor]:
        return {**self.adapter.tensors(), MAGNITUDE: self.magnitude}

    def to(self, device: torch.device) -> DecomposedRows:
        return DecomposedRows(self.adapter.to(device), self.magnitude.to(device))

    def merged(self, weight: Tensor, multiplier: float) -> Tensor:
        """Return the changed weight; weight and result are (out, in), fp32, on one device; see `Decomposed`."""
        changed = self.adapter.merged(weight, 1.0)
        return _with_magnitudes(changed, self.magnitude, row_norms(changed)[:, None], multiplier)


@dataclass(frozen=True)
class ScaledRows(RowChange):
    """An adapter with a magnitude for each row, (out, 1), relative to the norm of the base weight's row."""

    adapter: Adapter
    magnitude: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return self.adapter.shape

    def rows(self, index: slice | Tensor) -> ScaledRows:
        return ScaledRows(self.adapter.rows(index), self.magnitude[index].contiguous())

    def tensors(self) -> dict[str, Tensor]:
        return {**self.adapter.tensors(), BASE_MAGNITUDE: self.magnitude}

    def to(self, device: torch.device) -> ScaledRows:
        return ScaledRows(self.adapter.to(device), self.magnitude.to(device))

    def merged(self, weight: Tensor, multiplier: float) -> Tensor:
        """Return the changed weight; weight and result are (out, in), fp32, on one device.

        As in ComfyUI, the multiplier acts on the whole difference W' - W.
        """
        changed = self.adapter.merged(weight, 1.0)
        changed *= self.magnitude.to(weight.device, torch.float32) / row_norms(weight)[:, None]
        return torch.lerp(weight, changed, multiplier)


def row_norms(weight: Tensor) -> Tensor:
    """Return the norms [out] of a weight's rows (out, in), by which the magnitudes of `ScaledRows` are divided."""
    norms: Tensor = torch.linalg.vector_norm(weight, dim=1)
    return norms + EPS


def _with_magnitudes(changed: Tensor, magnitude: Tensor, norms: Tensor, multiplier: float) -> Tensor:
    ratio = magnitude.to(changed.device, torch.float32) / norms
    return changed * (multiplier * (ratio - 1) + 1)


def scaled_rows(module: str, adapter: Adapter, magnitude: Tensor) -> ScaledRows:
    """Combine an adapter and its magnitudes (out, 1), relative to the base weight's norms, from a file.

    Args:
        module: its name, for messages.

    Raises:
        UserError: the magnitude has another shape.
    """
    rows = adapter.shape[0]
    if magnitude.shape != (rows, 1) or not magnitude.is_floating_point():
        raise UserError(
            f"LoRA: the magnitude of {module} is {magnitude.dtype} {list(magnitude.shape)}; expected one number for "
            f"each of {rows} rows",
            hint="export it again",
        )
    return ScaledRows(adapter, magnitude)


def decomposed(module: str, adapter: Adapter, magnitude: Tensor) -> Decomposed | DecomposedRows:
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
    return DecomposedRows(adapter, magnitude) if magnitude.shape[1] == 1 else Decomposed(adapter, magnitude)
