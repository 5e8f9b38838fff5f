"""The changes of the transformer's linear layers in a LoRA file of any layout and kind, for sampling and merging."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from hv15.errors import UserError
from hv15.lora.adapters import RowChange, cast_up
from hv15.lora.dora import Decomposed, decomposed
from hv15.lora.formats import join_parts, read_adapter, read_parts
from hv15.lora.kinds import MAGNITUDE, changed_twice, depends_on_base, group_parts, kind_of, refuse_unusable
from hv15.lora.lycoris import LycorisChange
from hv15.lora.names import whole_module

WeightChange = RowChange | Decomposed | LycorisChange
"""Each has the `shape` (out, in) of the weight that it changes, and a method `merged`."""


def read_changes(state_dict: Mapping[str, Tensor]) -> dict[str, WeightChange]:
    """Return the change of each linear layer, by its official name.

    Args:
        state_dict: a LoRA of any layout, as `read_lora` returns it; matrices (rows, columns) and alphas ().

    Raises:
        UserError: keys or kinds are unknown, a module's tensors are incomplete or do not fit together, or a kind that
            depends on the base weights is used on a module that this layout joins or divides.
    """
    refuse_unusable(state_dict)
    modules, _ = group_parts(state_dict)
    dependent = {name: keys for name, keys in modules.items() if depends_on_base(keys)}
    taken = {key for keys in dependent.values() for key in keys.values()}
    others = {key: tensor for key, tensor in state_dict.items() if key not in taken}
    changes: dict[str, WeightChange] = {}
    if others or not dependent:
        changes.update(join_parts(read_parts(others), "official"))
    for name, keys in dependent.items():
        module = whole_module(name)
        if module is None:
            raise UserError(
                f"LoRA: {name} is {kind_of(keys)} on a module that is not one linear layer of the model "
                f"({next(iter(keys.values()))}); expected names such as lora_unet_double_blocks_0_img_attn_q",
                hint="use a LoRA, LoHa, LoKr or difference: only these can be on q, k and v in one matrix",
            )
        if module in changes:
            raise changed_twice(module, name)
        changes[module] = _dependent(name, {part: cast_up(state_dict[key]) for part, key in keys.items()})
    return changes


def _dependent(name: str, tensors: dict[str, Tensor]) -> Decomposed | LycorisChange:
    if MAGNITUDE not in tensors:
        return LycorisChange(name, tensors)
    magnitude = tensors.pop(MAGNITUDE)
    return decomposed(name, read_adapter(name, tensors), magnitude)
