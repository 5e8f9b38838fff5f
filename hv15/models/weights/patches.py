"""Changes of the transformer's weights or outputs from outside, such as LoRAs: what they are, and whether they fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn

from hv15.errors import UserError
from hv15.models.weights.quantised import QuantisedLinear

Shape = tuple[int, int | None]
"""(out, in) of a weight; None where a change does not tell."""


class Patch(Protocol):
    """A change of weights on their way from the file to where they are used, such as a LoRA that is merged."""

    name: str
    """For messages: the file that it comes from."""

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """Official names of the linear layers it changes, and the shapes of their weights."""

    def __call__(self, module: str, weight: Tensor) -> Tensor:
        """The changed weight; both fp32 [out, in]."""


def check_targets(
    dit: nn.Module, shapes: Mapping[str, Shape], *, name: str = "LoRA"
) -> dict[str, nn.Linear | QuantisedLinear]:
    """The linear layers that are to be changed, by name, quantised or not; every one must be there.

    Args:
        shapes: official names, and the shapes of the changed weights.
        name: for messages: what changes them.

    Raises:
        UserError: a layer that this model does not have, or of another size.
    """
    modules = dict(dit.named_modules())
    found = {each: layer for each in shapes if isinstance(layer := modules.get(each), nn.Linear | QuantisedLinear)}
    missing = [module for module in shapes if module not in found]
    if missing:
        raise UserError(
            f"{name}: {len(missing)} of {len(shapes)} changed layers are not in this model, first {missing[0]}",
            hint="the LoRA was made for a model with more blocks, or for another variant",
        )
    for module, layer in found.items():
        rows, columns = shapes[module]
        if rows != layer.out_features or columns not in (None, layer.in_features):
            weight = f"{rows} rows of a weight" if columns is None else f"a weight of {[rows, columns]}"
            raise UserError(
                f"{name}: {module} changes {weight}, the model's is {[layer.out_features, layer.in_features]}",
                hint="the LoRA was made for a model of another size",
            )
    return found
