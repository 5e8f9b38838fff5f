"""Uses lycoris-lora, an optional package, for kinds that only it defines: GLoRA, OFT and BOFT.

Their changes depend on the weight. They can be applied and merged, but not converted to another layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Protocol

import torch
from torch import Tensor, nn

from hv15.errors import UserError
from hv15.lora.kinds import GLORA_PARTS


class _LycorisModule(Protocol):
    """The part of lycoris-lora's modules that is used here; each is the change of one layer."""

    def to(self, device: torch.device) -> _LycorisModule: ...

    def get_merged_weight(
        self, multiplier: float, shape: torch.Size, device: torch.device
    ) -> tuple[Tensor, Tensor | None]: ...


class LycorisChange:
    """The change of one linear layer's weight by a kind that only lycoris-lora defines.

    Args:
        module: the layer's official name, for messages.
        tensors: by part: a1.weight, ... of a GLoRA; oft_blocks (blocks, b, b) or (m, blocks, b, b) of an OFT or BOFT.
            If alpha is missing, it is the rank for a GLoRA, and means no constraint for an OFT.

    Raises:
        UserError: tensors are missing, or lycoris-lora is.
    """

    def __init__(self, module: str, tensors: Mapping[str, Tensor]) -> None:
        self.module, self.tensors, self._kinds = module, dict(tensors), _lycoris().modules
        self._made: tuple[nn.Linear, _LycorisModule] | None = None
        if "oft_blocks" in tensors and tensors["oft_blocks"].ndim in (3, 4):
            blocks, size = tensors["oft_blocks"].shape[-3:-1]
            self.shape: tuple[int, int | None] = (blocks * size, None)
            """(out, in); None if the tensors do not determine it."""
            self.tensors.setdefault("alpha", torch.tensor(0.0))
        elif all(part in tensors and tensors[part].ndim == 2 for part in GLORA_PARTS):
            self.shape = tensors["b1.weight"].shape[0], tensors["b2.weight"].shape[1]
            self.tensors.setdefault("alpha", torch.tensor(float(tensors["a2.weight"].shape[0])))
        else:
            shapes = ", ".join(f"{part} {list(tensor.shape)}" for part, tensor in sorted(tensors.items()))
            raise UserError(
                f"LoRA: {module} is neither a GLoRA nor an OFT of lycoris-lora: {shapes}",
                hint="export it again",
            )

    @torch.no_grad()
    def merged(self, weight: Tensor, multiplier: float) -> Tensor:
        """Return the changed weight; weight and result are (out, in), fp32, on one device.

        Raises:
            UserError: lycoris-lora cannot apply these tensors to such a weight.
        """
        try:
            layer, adapter = self._made = self._made or self._make(*weight.shape)
            layer.weight = nn.Parameter(weight, requires_grad=False)
            changed, _ = adapter.to(weight.device).get_merged_weight(multiplier, weight.shape, weight.device)
        except (TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise UserError(
                f"LoRA: lycoris-lora cannot apply {self.module} to a weight of {list(weight.shape)}: {error}",
                hint="use a LoRA for this model, or the version of lycoris-lora that made it",
            ) from error
        layer.weight = nn.Parameter(torch.empty(0), requires_grad=False)  # frees the weight
        return changed

    def to(self, _device: torch.device) -> LycorisChange:
        """Return itself: its tensors are moved to the weights' device when they are used."""
        return self

    def _make(self, rows: int, columns: int) -> tuple[nn.Linear, _LycorisModule]:
        """Make lycoris-lora's module and the linear layer on the meta device to which it belongs."""
        layer = nn.Linear(columns, rows, bias=False, device="meta")
        kind, parts = self._kinds.get_module({f"it.{part}": tensor for part, tensor in self.tensors.items()}, "it")
        return layer, self._kinds.make_module(kind, parts, "it", layer)


def _lycoris() -> ModuleType:
    try:
        import lycoris.modules
    except ImportError as error:
        raise UserError(
            f"LoRA: GLoRA and OFT need lycoris-lora, which cannot be imported: {error}",
            hint="install it: pip install 'hv15[lycoris]'",
        ) from error
    package: ModuleType = lycoris
    return package
