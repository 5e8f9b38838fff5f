"""Patches that change the transformer's weights or outputs, such as LoRAs, and checks that they fit the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn

from hv15.errors import UserError
from hv15.models.weights.quantised import QuantisedLinear

Shape = tuple[int, int | None]
"""(out, in) of a weight; None if the patch does not determine it."""


class Patch(Protocol):
    """A change of weights while they are loaded from a file, such as merging a LoRA."""

    name: str
    """For messages: the file that it comes from."""

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """Official names of the linear layers that it changes, and the shapes of their weights."""

    def __call__(self, module: str, weight: Tensor) -> Tensor:
        """Return the changed weight of a module; both are fp32 [out, in]."""


def check_targets(
    dit: nn.Module, shapes: Mapping[str, Shape], *, name: str = "LoRA"
) -> dict[str, nn.Linear | QuantisedLinear]:
    """Find the linear layers to change, by name, quantised or not; all of them must exist.

    Args:
        shapes: official names, and the shapes of the changed weights.
        name: of the patch, for messages.

    Raises:
        UserError: the model does not have a layer, or a layer has another size.
    """
    modules = dict(dit.named_modules())
    found = {each: layer for each in shapes if isinstance(layer := modules.get(each), nn.Linear | QuantisedLinear)}
    missing = [module for module in shapes if module not in found]
    if missing:
        raise UserError(
            f"{name}: {len(missing)} of {len(shapes)} changed layers are not in this model, first {missing[0]}",
            hint="use a LoRA for this model: this one was made for a model with more blocks, or for another variant",
        )
    for module, layer in found.items():
        rows, columns = shapes[module]
        if rows != layer.out_features or columns not in (None, layer.in_features):
            weight = f"{rows} rows of a weight" if columns is None else f"a weight of {[rows, columns]}"
            raise UserError(
                f"{name}: {module} changes {weight}, but the model's is {[layer.out_features, layer.in_features]}",
                hint="use a LoRA for this model: this one was made for a model of another size",
            )
    return found
