"""Changes that depend on the base weights, written so that a file can hold them: the weights must be given.

| in the file | becomes |
|---|---|
| DoRA by rows, as LyCORIS and PEFT train it | DoRA by the norms of the base weight (exact): ComfyUI's |
| DoRA by columns, GLoRA, OFT, BOFT | the full difference of each weight (exact, but large) |

and for PEFT's layouts the other way round: magnitudes relative to the norms of the changed weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from hv15.choices import LoRALayout
from hv15.errors import UserError
from hv15.lora.adapters import Adapter, Difference, LowRank, RowChange
from hv15.lora.changes import read_any_parts
from hv15.lora.dora import DecomposedRows, ScaledRows, row_norms
from hv15.lora.formats import Parts, pieces
from hv15.lora.names import find_parts, place_of

Weights = Callable[[str], Tensor]
"""Returns the base weight (out, in), fp32, of a linear layer by its official name (`hv15.models.LinearWeights`)."""


def read_with_base(state_dict: Mapping[str, Tensor], weights: Weights) -> Parts:
    """Read a LoRA of any layout and of any kind that can be merged.

    Args:
        state_dict: as `read_lora` returns it.

    Raises:
        UserError: as `read_changes`, or the base has no such layer or a layer of another size.
    """
    parts, others = read_any_parts(state_dict)
    for part, change in parts.items():
        if isinstance(change, DecomposedRows):
            weight = _rows_of(part, weights)
            _check_size(part, change.shape, weight)
            norms = row_norms(weight) / row_norms(change.adapter.merged(weight, 1.0))
            parts[part] = ScaledRows(change.adapter, change.magnitude.float() * norms[:, None])
    for module, whole in others.items():
        weight = weights(module)
        _check_size(module, whole.shape, weight)
        found = pieces(Difference(whole.merged(weight, 1.0) - weight), find_parts(module) or {})
        parts |= {part: piece for part, piece in found.items() if piece is not None}
    return parts


def complete_joined(parts: Parts, layout: LoRALayout, weights: Weights) -> Parts:
    """Make DoRA of all of q, k and v that a layout joins, if one of them is; what they do stays the same."""
    joined: dict[str, list[str]] = {}
    for part in find_all_thirds(parts, layout):
        joined.setdefault(place_of(part, layout).module, []).append(part)
    result = dict(parts)
    for thirds in joined.values():
        if any(isinstance(parts.get(part), ScaledRows) for part in thirds):
            for part in thirds:
                result[part] = _with_base_norms(part, parts.get(part), weights)
    return result


def find_all_thirds(parts: Parts, layout: LoRALayout) -> list[str]:
    """Return the parts of all modules of a layout that join q, k and v and are changed, those without a LoRA too."""
    found: dict[str, None] = {}
    for part in parts:
        place = place_of(part, layout)
        if place.third is not None:
            found.update(dict.fromkeys(find_parts(place.module) or {}))
    return list(found)


def with_changed_norms(parts: Parts, weights: Weights) -> Parts:
    """Give every part magnitudes relative to the norms of its changed weight, as PEFT and LyCORIS use them."""
    result: Parts = {}
    for part, change in parts.items():
        weight = _rows_of(part, weights)
        if isinstance(change, ScaledRows):
            norms = row_norms(change.adapter.merged(weight, 1.0)) / row_norms(weight)
            result[part] = ScaledRows(change.adapter, change.magnitude.float() * norms[:, None])
        else:
            assert isinstance(change, Adapter)
            result[part] = ScaledRows(change, row_norms(change.merged(weight, 1.0))[:, None])
    return result


def _check_size(name: str, shape: tuple[int, int | None], weight: Tensor) -> None:
    rows, columns = shape
    if weight.shape[0] != rows or columns not in (None, weight.shape[1]):
        raise UserError(
            f"LoRA: {name} changes a weight of {list(shape)}, but that of --base is {list(weight.shape)}",
            hint="give the model that this LoRA was made for",
        )


def _with_base_norms(part: str, change: RowChange | None, weights: Weights) -> ScaledRows:
    """Return the same change as a DoRA by the norms of the base weight; None changes nothing."""
    if isinstance(change, ScaledRows):
        return change
    weight = _rows_of(part, weights)
    if change is None:
        change = LowRank(torch.zeros(1, weight.shape[1]), torch.zeros(weight.shape[0], 1), 1.0)
    assert isinstance(change, Adapter)
    return ScaledRows(change, row_norms(weight)[:, None])


def _rows_of(part: str, weights: Weights) -> Tensor:
    """Return the rows of a base weight that a part of the model is."""
    place = place_of(part, "official")
    weight = weights(place.module)
    if place.third is None:
        return weight
    third = weight.shape[0] // 3
    return weight[place.third * third : (place.third + 1) * third]
