"""Joins the changes of q, k and v into one for their joint matrix, and splits it again, both exactly.

Joined LoRA: the downs are stacked, the ups form a block diagonal. There is one alpha for all three. If the scales
alpha/rank are equal, as usual, it is the scale times the joint rank, and no number changes; otherwise the ratio of the
scales goes into the ups (fp32). LoHa joins in the same way, because each of its two products keeps its row blocks
separate. LoKr joins by stacking w1 if all three share w2; otherwise it becomes a full difference. A DoRA that scales
rows joins as its adapter does, with the magnitudes one behind the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import torch
from torch import Tensor

from hv15.errors import UserError
from hv15.lora.adapters import Adapter, Difference, Hadamard, Kronecker, LowRank, RowChange, product, scaled
from hv15.lora.dora import DecomposedRows, ScaledRows


def join(name: str, parts: Sequence[RowChange | None]) -> RowChange:
    """Join the changes of q, k and v, each (out, in), into one for their matrix (3 * out, in), exactly.

    Args:
        name: of the joint matrix, for messages.
        parts: three, at least one of them a change; None changes nothing.

    Raises:
        UserError: only some of them are DoRA: the magnitudes of the others are norms of weights that no file holds.
    """
    scaled_parts = [part for part in parts if isinstance(part, ScaledRows | DecomposedRows)]
    if not scaled_parts:
        return _join_adapters([part if isinstance(part, Adapter) else None for part in parts])
    kind = type(scaled_parts[0])
    if len(scaled_parts) < len(parts) or not all(isinstance(part, kind) for part in scaled_parts):
        raise UserError(
            f"LoRA: {name} is q, k and v in one matrix, but only {len(scaled_parts)} of the three have a DoRA",
            hint="train all three or none of them, or a plain LoRA",
        )
    adapter = _join_adapters([part.adapter for part in scaled_parts])
    return kind(adapter, _stack([part.magnitude for part in scaled_parts]))


def split(change: RowChange) -> list[RowChange | None]:
    """Split a change (3 * out, in) into three of (out, in), exactly; a third that changes nothing is None.

    A block diagonal is split into the parts that `join` got. A dense LoRA, trained on the joint matrix, is split into
    three that each have the whole down and their rows of up.
    """
    third = change.shape[0] // 3
    thirds = [slice(i * third, (i + 1) * third) for i in range(3)]
    if isinstance(change, ScaledRows | DecomposedRows):
        kind, adapters = type(change), split(change.adapter)
        magnitudes = [change.magnitude[rows].contiguous() for rows in thirds]
        return [
            kind(part, magnitude) if isinstance(part, Adapter) else change.rows(rows)
            for part, magnitude, rows in zip(adapters, magnitudes, thirds, strict=True)
        ]
    if isinstance(change, LowRank):
        return [*_split_low_rank(change, thirds)]
    if isinstance(change, Hadamard):
        return [*_split_hadamard(change, thirds)]
    return [part if _changes(part) else None for part in map(change.rows, thirds)]


def _join_adapters(parts: Sequence[Adapter | None]) -> Adapter:
    present = [part for part in parts if part is not None]
    if all(isinstance(part, LowRank) for part in present):
        return _join_low_rank([part if isinstance(part, LowRank) else None for part in parts])
    if all(isinstance(part, Hadamard) for part in present):
        return _join_hadamard([part if isinstance(part, Hadamard) else None for part in parts])
    if (joined := _join_kronecker(parts)) is not None:
        return joined
    rows, columns = present[0].shape
    return Difference(torch.cat([torch.zeros(rows, columns) if part is None else part.delta() for part in parts]))


def _changes(change: RowChange) -> bool:
    """Whether a LoKr or a difference changes anything."""
    if isinstance(change, Kronecker):
        return bool(product(change.w1).any() and product(change.w2).any())
    assert isinstance(change, Adapter)
    return bool(change.delta().any())


def _join_low_rank(parts: Sequence[LowRank | None]) -> LowRank:
    present = [part for part in parts if part is not None]
    first = present[0]
    if len(present) == len(parts) and all(
        part.alpha == first.alpha and torch.equal(part.down, first.down) for part in present[1:]
    ):
        return LowRank(first.down, _stack([part.up for part in present]), first.alpha)  # they share one down
    alpha, factors = _joint_alpha(present)
    ups = [scaled(part.up, factor) for part, factor in zip(present, factors, strict=True)]
    return LowRank(_stack([part.down for part in present]), _block_diagonal(parts, ups), alpha)


def _join_hadamard(parts: Sequence[Hadamard | None]) -> Hadamard:
    present = [part for part in parts if part is not None]
    alpha, factors = _joint_alpha(present)
    return Hadamard(
        _block_diagonal(parts, [scaled(part.w1_a, factor) for part, factor in zip(present, factors, strict=True)]),
        _stack([part.w1_b for part in present]),
        _block_diagonal(parts, [part.w2_a for part in present]),
        _stack([part.w2_b for part in present]),
        alpha,
    )


def _join_kronecker(parts: Sequence[Adapter | None]) -> Kronecker | None:
    """Join three LoKr with equal w2 by stacking their w1, with zeros for a missing one; None if that is impossible."""
    present = [part for part in parts if isinstance(part, Kronecker)]
    if len(present) < sum(part is not None for part in parts) or any(len(part.w1) == 2 for part in present):
        return None
    first = present[0]
    if any(part.alpha != first.alpha or not _equal(part.w2, first.w2) for part in present[1:]):
        return None
    empty = torch.zeros_like(first.w1[0])
    w1 = _stack([part.w1[0] if isinstance(part, Kronecker) else empty for part in parts])
    return Kronecker((w1,), first.w2, first.alpha)


def _equal(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


def _joint_alpha(parts: Sequence[LowRank] | Sequence[Hadamard]) -> tuple[float, list[float]]:
    """Return one alpha for the joint rank, and the factor with which each part must be multiplied for it."""
    rank = sum(part.rank for part in parts)
    if len({(part.alpha, part.rank) for part in parts}) == 1:
        return parts[0].alpha * len(parts), [1.0] * len(parts)
    scale = parts[0].scale or 1.0
    return scale * rank, [part.scale / scale for part in parts]


def _split_low_rank(adapter: LowRank, thirds: Sequence[slice]) -> list[Adapter | None]:
    columns = _column_ranges([adapter.up[rows] for rows in thirds])
    if columns is None:
        return [adapter.rows(rows) for rows in thirds]
    return [
        LowRank(
            adapter.down[part].contiguous(),
            adapter.up[rows, part].contiguous(),
            _share(adapter.alpha, part.stop - part.start, adapter.rank),
        )
        if part.stop > part.start
        else None
        for rows, part in zip(thirds, columns, strict=True)
    ]


def _split_hadamard(adapter: Hadamard, thirds: Sequence[slice]) -> list[Adapter | None]:
    columns = _column_ranges([adapter.w1_a[rows] for rows in thirds])
    if columns is None or columns != _column_ranges([adapter.w2_a[rows] for rows in thirds]):
        return [adapter.rows(rows) for rows in thirds]
    return [
        replace(
            adapter,
            w1_a=adapter.w1_a[rows, part].contiguous(),
            w1_b=adapter.w1_b[part].contiguous(),
            w2_a=adapter.w2_a[rows, part].contiguous(),
            w2_b=adapter.w2_b[part].contiguous(),
            alpha=_share(adapter.alpha, part.stop - part.start, adapter.rank),
        )
        if part.stop > part.start
        else None
        for rows, part in zip(thirds, columns, strict=True)
    ]


def _share(alpha: float, rank: int, joint_rank: int) -> float:
    """Return a part's alpha, which keeps alpha/rank; exactly alpha/3 for equal ranks."""
    return alpha / 3 if rank * 3 == joint_rank else alpha * rank / joint_rank


def _column_ranges(blocks: Sequence[Tensor]) -> list[slice] | None:
    """Return the columns of each row block if the blocks form a block diagonal; None if they do not.

    Equal widths are tried first, so that columns of zeros stay in their block. The text queries of the last block, for
    example, never get a gradient, so their up stays zero.
    """
    width = blocks[0].shape[1]
    used = [block.any(dim=0).nonzero().flatten().tolist() for block in blocks]
    if width % 3 == 0:
        third = width // 3
        if all(i * third <= column < (i + 1) * third for i, columns in enumerate(used) for column in columns):
            return [slice(i * third, (i + 1) * third) for i in range(3)]
    if not any(used):
        return None
    ranges, start = [], 0
    for i, columns in enumerate(used):
        later = [column for others in used[i + 1 :] for column in others]
        stop = min(later, default=width) if columns else start
        if columns and (columns[0] < start or columns[-1] >= stop):
            return None
        ranges.append(slice(start, stop))
        start = stop
    return ranges


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    dtype = _common_dtype(tensors)
    return torch.cat([tensor.to(dtype) for tensor in tensors])


def _block_diagonal(parts: Sequence[Adapter | None], blocks: Sequence[Tensor]) -> Tensor:
    """Make a block diagonal with rows for every part, but columns only for those that are present."""
    rows = blocks[0].shape[0]
    result = blocks[0].new_zeros(
        rows * len(parts), sum(block.shape[1] for block in blocks), dtype=_common_dtype(blocks)
    )
    column, remaining = 0, iter(blocks)
    for i, part in enumerate(parts):
        if part is not None:
            block = next(remaining)
            result[i * rows : (i + 1) * rows, column : column + block.shape[1]] = block
            column += block.shape[1]
    return result


def _common_dtype(tensors: Sequence[Tensor]) -> torch.dtype:
    return reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
