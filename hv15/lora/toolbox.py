"""Makes LoRA files from LoRA files or checkpoints: sums, extracts, resizes, divides, scales; each says what it lost.

A file of any layout is read. The result has the layout of the first file, or of `Written.layout`, and its metadata,
without what no longer holds. DoRA and other kinds that depend on the base weights are no sums: they are refused, except
where they stay as they are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hv15 import __version__
from hv15.choices import LoRALayout
from hv15.errors import UserError
from hv15.lora.about import KOHYA_HASH, SHA256
from hv15.lora.adapters import Adapter, Difference, Hadamard, Kronecker, LowRank, RowChange, scaled
from hv15.lora.conversion import convert
from hv15.lora.files import read_lora, save_lora
from hv15.lora.formats import Parts, join_parts, pieces, read_parts, write_modules
from hv15.lora.kinds import BASE_MAGNITUDE, depends_on_base, detect_lora_layout, group_parts, kind_of
from hv15.lora.low_rank_sums import Loss, nearest, summed, total_rank
from hv15.lora.names import find_parts
from hv15.lora.weighted import naming
from hv15.models.dit_files import LinearWeights, block_number
from hv15.models.weights.fingerprint import model_fingerprint
from hv15.records.metadata import AVERAGE, EMA_DECAY, MADE_FROM, MADE_WITH, VALIDATION_LOSS, VERSION

_STALE = (MADE_FROM, EMA_DECAY, AVERAGE, VALIDATION_LOSS, KOHYA_HASH, "sshs_legacy_hash", SHA256)
"""Metadata that holds for one file only."""


@dataclass(frozen=True)
class Written:
    """How a result is written."""

    path: Path
    layout: LoRALayout | None = None
    """None for that of the first file."""
    dtype: torch.dtype | None = None
    """Of the matrices; None for that of the first file."""


@dataclass(frozen=True)
class _Read:
    path: Path
    parts: Parts
    layout: LoRALayout
    dtype: torch.dtype
    metadata: Mapping[str, str]


def add_loras(loras: Sequence[tuple[Path, float]], out: Written, *, rank: int | None = None) -> list[str]:
    """Write the weighted sum of LoRAs: exact, with the sum of their ranks, or the nearest LoRA of a rank.

    Returns:
        Lines about what was lost.

    Raises:
        UserError: a file cannot be used, is a DoRA, or they are of models of different sizes.
    """
    files = [(_read(path), weight) for path, weight in loras]
    terms: dict[str, list[tuple[Adapter, float]]] = {}
    for file, weight in files:
        for part, change in _adapters(file).items():
            if terms.get(part) and terms[part][0][0].shape != change.shape:
                raise UserError.at(
                    file.path,
                    f"{part} is {list(change.shape)}, in the others {list(terms[part][0][0].shape)}",
                    hint="add LoRAs of one model",
                )
            terms.setdefault(part, []).append((change, weight))
    sums: Parts = {part: summed(each) for part, each in terms.items()}
    lines = ["sum: exact"]
    if rank is not None:
        sums, loss = _resized(sums, rank, None)
        lines = [loss.told(f"sum at rank {rank}")]
    elif large := sum(isinstance(change, Difference) for change in sums.values()):
        lines.append(f"{large} layers are full differences, because not all of them are LoRA: --rank makes them small")
    made = {"command": "add", "loras": [[file.path.name, weight] for file, weight in files]}
    return lines + _write(files[0][0], sums, out, made)


def extract_lora(base: Path, tuned: Path, out: Written, *, rank: int, energy: float | None = None) -> list[str]:
    """Write the nearest LoRA to the difference of two checkpoints of the transformer, in any layouts.

    Raises:
        UserError: a checkpoint cannot be read, or they differ in size or not at all.
    """
    first, second = LinearWeights(base), LinearWeights(tuned)
    if first.shapes != second.shapes:
        raise UserError.at(tuned, f"has other layers or sizes than {base}", hint="give two checkpoints of one model")
    parts: Parts = {}
    loss = Loss()
    for module in first.shapes:
        difference = second(module) - first(module)
        if not difference.any():
            continue
        lora, error, norm = nearest(Difference(difference), rank, energy)
        parts |= _parts_of(module, lora)
        loss.add(module, error, norm)
    if not parts:
        raise UserError.at(tuned, f"has the same linear layers as {base}", hint="give the tuned checkpoint second")
    lines = [loss.told(f"difference at rank {rank}")]
    if left := first.others_that_differ(second):
        lines.append(f"{len(left)} other tensors differ and are left out, first {', '.join(left[:3])}")
    source = _Read(tuned, parts, "kohya", torch.float32, {"ss_base_model_version": "hunyuan-video-1.5"})
    return lines + _write(source, parts, out, {"command": "extract", "base": base.name, "tuned": tuned.name})


def resize_lora(path: Path, out: Written, *, rank: int | None = None, energy: float | None = None) -> list[str]:
    """Write the nearest LoRA of a rank, or for each layer of the smallest rank that keeps a share of the energy.

    Raises:
        UserError: the file cannot be used, or is a DoRA.
    """
    file = _read(path)
    parts, loss = _resized(_adapters(file), rank, energy)
    ranks = sorted(change.rank for change in parts.values() if isinstance(change, LowRank))
    lines = [loss.told("resized"), f"ranks {ranks[0]} to {ranks[-1]}, on average {sum(ranks) / len(ranks):.1f}"]
    return lines + _write(file, parts, out, {"command": "resize", "rank": rank, "energy": energy})


def split_lora(path: Path, ranges: Sequence[tuple[int, int]], folder: Path) -> list[str]:
    """Write a file for each range of blocks, first and last, and one for the layers that are in none of them.

    Raises:
        UserError: the file cannot be used, ranges overlap, or one has no layer.
    """
    file = _read(path)
    blocks = [number for first, last in ranges for number in range(first, last + 1)]
    if len(set(blocks)) < len(blocks):
        given = " ".join(f"{first}-{last}" for first, last in ranges)
        raise UserError(f"--blocks {given}: some overlap", hint="give ranges without common blocks, such as 0-19 20-53")
    lines = []
    chosen = {f"blocks-{first}-{last}": range(first, last + 1) for first, last in ranges}
    rest = {part: change for part, change in file.parts.items() if block_number(part) not in blocks}
    for name, numbers in chosen.items():
        parts = {part: change for part, change in file.parts.items() if block_number(part) in numbers}
        if not parts:
            raise UserError.at(
                path,
                f"has no layer in blocks {numbers[0]} to {numbers[-1]}",
                hint="leave this range out; blocks are counted from 0",
            )
        lines += _write(file, parts, Written(folder / f"{path.stem}.{name}.safetensors"), {"command": "split"})
    if rest:
        lines += _write(file, rest, Written(folder / f"{path.stem}.rest.safetensors"), {"command": "split"})
    return lines


def scale_lora(
    path: Path, factor: float, out: Written, *, only: Callable[[str], bool] = lambda part: True
) -> list[str]:
    """Write a LoRA with its strength multiplied: in alpha, so that no number is rounded.

    Args:
        only: which parts of the model, by official name.

    Raises:
        UserError: the file cannot be used, is a DoRA, or no part is chosen.
    """
    file = _read(path)
    chosen = {part for part in file.parts if only(part)}
    if not chosen:
        raise UserError.at(
            path,
            "changes no layer that --only finds",
            hint=f"correct the pattern: it is searched in names such as {next(iter(file.parts))}",
        )
    for part in chosen:
        _refuse_dora(file, part)
    parts = {part: _times(change, factor) if part in chosen else change for part, change in file.parts.items()}
    lines = [f"{len(chosen)} of {len(parts)} layers times {factor:g}: exact"]
    return lines + _write(file, parts, out, {"command": "scale", "factor": factor})


def cast_lora(path: Path, out: Written) -> list[str]:
    """Write a LoRA in another number format and say what the rounding changes.

    Raises:
        UserError: the file cannot be used.
    """
    file = _read(path)
    return _write(file, file.parts, out, {"command": "cast"})


def _read(path: Path) -> _Read:
    state_dict, metadata = read_lora(path)
    for module, keys in group_parts(state_dict)[0].items():
        if depends_on_base(keys):
            raise _no_sum(path, module, kind_of(keys))
    dtypes = Counter(tensor.dtype for tensor in state_dict.values() if tensor.ndim == 2)
    with naming(path):
        parts = read_parts(state_dict)
    return _Read(path, parts, detect_lora_layout(state_dict), dtypes.most_common(1)[0][0], metadata)


def _adapters(file: _Read) -> dict[str, Adapter]:
    for part in file.parts:
        _refuse_dora(file, part)
    return {part: change for part, change in file.parts.items() if isinstance(change, Adapter)}


def _refuse_dora(file: _Read, part: str) -> None:
    if not isinstance(file.parts[part], Adapter):
        raise _no_sum(file.path, part, kind_of(file.parts[part].tensors()))


def _no_sum(path: Path, name: str, kind: str) -> UserError:
    return UserError.at(
        path,
        f"{name} is {kind}, whose change depends on the base weights: it cannot be added, scaled or resized",
        hint="merge it into the base model (hv15 merge), and extract a LoRA from both (hv15 lora extract)",
    )


def _resized(parts: Mapping[str, RowChange], rank: int | None, energy: float | None) -> tuple[Parts, Loss]:
    result: Parts = {}
    loss = Loss()
    for part, change in parts.items():
        assert isinstance(change, Adapter)
        result[part], error, norm = nearest(change, rank, energy)
        loss.add(part, error, norm)
    return result, loss


def _times(change: RowChange, factor: float) -> RowChange:
    match change:
        case LowRank(down, up, alpha):
            return LowRank(down, up, alpha * factor)
        case Hadamard(w1_a, w1_b, w2_a, w2_b, alpha):
            return Hadamard(w1_a, w1_b, w2_a, w2_b, alpha * factor)
        case Kronecker(w1, w2, alpha) if len(w1) == 2 or len(w2) == 2:
            return Kronecker(w1, w2, alpha * factor)
        case Kronecker((w1,), w2, alpha):
            return Kronecker((scaled(w1, factor),), w2, alpha)
        case Difference(diff):
            return Difference(scaled(diff, factor))
        case _:
            raise TypeError(type(change).__name__)


def _parts_of(module: str, lora: LowRank) -> Parts:
    """Divide a LoRA of a layer of the official layout into those of the model's parts."""
    places = find_parts(module)
    assert places is not None, module
    return {part: piece for part, piece in pieces(lora, places).items() if piece is not None}


def _write(source: _Read, parts: Parts, out: Written, made: Mapping[str, object]) -> list[str]:
    """Write changes with the metadata of a file; say what the rounding to the number format lost."""
    layout, dtype = out.layout or source.layout, out.dtype or source.dtype
    tensors = write_modules(join_parts(parts, "kohya"), "kohya")
    metadata = _metadata(source, parts, made)
    if layout != "kohya":
        tensors, metadata = convert(tensors, layout, metadata=metadata)
    save_lora(out.path, tensors, metadata, dtype=dtype)
    loss = _rounding(tensors, dtype)
    numbers = sum(tensor.numel() for tensor in tensors.values())
    name = str(dtype).removeprefix("torch.")
    return [loss.told(f"rounded to {name}"), f"{out.path}: {len(parts)} layers, {numbers / 1e6:.1f} million numbers"]


def _metadata(source: _Read, parts: Parts, made: Mapping[str, object]) -> dict[str, str]:
    kept = {key: value for key, value in source.metadata.items() if key not in _STALE}
    adapters = [change for change in parts.values() if isinstance(change, Adapter)]
    rank = total_rank(adapters)
    alphas = {change.alpha for change in adapters if isinstance(change, LowRank)}
    described = {
        "ss_network_dim": "Dynamic" if rank is None else str(rank),
        "ss_network_alpha": f"{alphas.pop():g}" if len(alphas) == 1 else "Dynamic",
        VERSION: __version__,
        MADE_WITH: json.dumps({**made, "source": model_fingerprint(source.path)}, ensure_ascii=False),
    }
    return {**kept, **described}


def _rounding(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Loss:
    """Return what casting the matrices to a dtype loses, over all of them."""
    loss = Loss()
    for key, tensor in tensors.items():
        if tensor.ndim and not key.endswith(BASE_MAGNITUDE) and tensor.dtype != dtype:
            error = (tensor.to(dtype).float() - tensor.float()).square().sum().item()
            loss.add(key, error, tensor.float().square().sum().item())
    return loss
