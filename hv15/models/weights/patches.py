"""Changes of the transformer's weights or outputs from outside, such as LoRAs: what they are, and whether they fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from hv15.errors import UserError


class Patch(Protocol):
    """A change of weights on their way from the file to where they are used, such as a LoRA that is merged."""

    name: str
    """For messages: the file that it comes from."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, int] | None]:
        """Official names of the linear layers it changes, and their [out, in] if it knows them."""

    def __call__(self, module: str, weight: Tensor) -> Tensor:
        """The changed weight; both fp32 [out, in]."""


def check_targets(
    dit: nn.Module, shapes: Mapping[str, tuple[int, int] | None], *, name: str = "LoRA"
) -> dict[str, Any]:
    """The linear layers that are to be changed, by name, quantised or not; every one must be there.

    Args:
        shapes: official names, and [out, in] where it is known.
        name: for messages: what changes them.

    Raises:
        UserError: a layer that this model does not have, or of another size.
    """
    modules = dict(dit.named_modules())
    missing = [module for module in shapes if not hasattr(modules.get(module), "in_features")]
    if missing:
        raise UserError(
            f"{name}: {len(missing)} of {len(shapes)} changed layers are not in this model, first {missing[0]}",
            hint="the LoRA was made for a model with more blocks, or for another variant",
        )
    layers: dict[str, Any] = {module: modules[module] for module in shapes}
    for module, shape in shapes.items():
        found = (layers[module].out_features, layers[module].in_features)
        if shape is not None and shape != found:
            raise UserError(
                f"{name}: {module} changes a weight of {list(shape)}, the model's is {list(found)}",
                hint="the LoRA was made for a model of another size",
            )
    return layers
