"""The changes of the transformer's linear layers in a LoRA file of any layout and kind, for sampling and merging."""

from __future__ import annotations

from collections.abc import Container, Mapping

from torch import Tensor

from hv15.errors import UserError
from hv15.lora.adapters import RowChange, cast_up
from hv15.lora.dora import Decomposed, DecomposedRows, decomposed
from hv15.lora.formats import Parts, join_parts, pieces, read_adapter, read_parts
from hv15.lora.kinds import MAGNITUDE, changed_twice, depends_on_base, group_parts, kind_of, refuse_unusable
from hv15.lora.lycoris import LycorisChange
from hv15.lora.names import find_parts, whole_module

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
    parts, changes = read_any_parts(state_dict)
    joined = join_parts(parts, "official")
    for module in changes:
        _refuse_twice(module, joined)
    return {**joined, **changes}


def read_any_parts(state_dict: Mapping[str, Tensor]) -> tuple[Parts, dict[str, Decomposed | LycorisChange]]:
    """Return the changes that can be divided by rows, by part of the model, and the others by the layer they change.

    Raises:
        UserError: as `read_changes`.
    """
    refuse_unusable(state_dict)
    modules, _ = group_parts(state_dict)
    dependent = {name: keys for name, keys in modules.items() if depends_on_base(keys)}
    taken = {key for keys in dependent.values() for key in keys.values()}
    others = {key: tensor for key, tensor in state_dict.items() if key not in taken}
    parts = read_parts(others) if others or not dependent else {}
    changes: dict[str, Decomposed | LycorisChange] = {}
    for name, keys in dependent.items():
        change = _dependent(name, {part: cast_up(state_dict[key]) for part, key in keys.items()})
        places = find_parts(name)
        if isinstance(change, DecomposedRows) and places is not None:
            for part, piece in pieces(change, places).items():
                _refuse_twice(part, parts, name)
                if piece is not None:
                    parts[part] = piece
            continue
        module = whole_module(name)
        if module is None or isinstance(change, DecomposedRows):
            raise UserError(
                f"LoRA: {name} is {kind_of(keys)} on a module that is not one linear layer of the model "
                f"({next(iter(keys.values()))}); expected names such as lora_unet_double_blocks_0_img_attn_q",
                hint="use a LoRA, LoHa, LoKr or difference: only these can be on q, k and v in one matrix",
            )
        _refuse_twice(module, changes, name)
        changes[module] = change
    return parts, changes


def _refuse_twice(module: str, present: Container[str], name: str = "another module") -> None:
    if module in present:
        raise changed_twice(module, name)


def _dependent(name: str, tensors: dict[str, Tensor]) -> Decomposed | DecomposedRows | LycorisChange:
    if MAGNITUDE not in tensors:
        return LycorisChange(name, tensors)
    magnitude = tensors.pop(MAGNITUDE)
    return decomposed(name, read_adapter(name, tensors), magnitude)
