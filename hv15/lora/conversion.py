"""Converts LoRA files from one layout to another exactly: every weight is changed by the same difference.

| to | what is written |
|---|---|
| kohya | separate q, k, v; alpha; the layout that hv15 writes (musubi-tuner reads it) |
| comfyui | joined q, k, v; alpha; ComfyUI's names after `diffusion_model.` |
| diffusers | `transformer.` names; alpha goes into up (LoKr: w1), because its loader ignores `.alpha` tensors |
| official | as diffusers, with the official code's names and no prefix |

LoHa and LoKr convert exactly to kohya and ComfyUI, except that q, k and v joined for ComfyUI are a LoKr only if the
three share w2; else they become a full difference, or with `svd_rank` the nearest LoRA. diffusers reads LoRA, or LoKr
that all have the same factor (see `hv15.lora.diffusers_lokr`); the official code reads only LoRA. Everything else needs
`svd_rank` for these two, except DoRA: hv15's converts to kohya and ComfyUI only, all others not at all.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from hv15.choices import LoRALayout
from hv15.errors import UserError
from hv15.lora.adapters import Adapter, Difference, Kronecker, LowRank, RowChange, low_rank_of, scaled
from hv15.lora.diffusers_lokr import as_diffusers_builds
from hv15.lora.dora import ScaledRows
from hv15.lora.formats import Parts, join_parts, read_parts, write_modules
from hv15.lora.kinds import detect_lora_layout, kind_of
from hv15.lora.names import LORA_LAYOUTS, place_of
from hv15.lora.peft import ADAPTER_METADATA, lokr_settings, lora_settings, with_alphas
from hv15.records import formats
from hv15.records.metadata import CONVERSION_FORMAT, CONVERSION_NOTE, CONVERTED_FROM, CONVERTED_TO

_STALE = (ADAPTER_METADATA, CONVERSION_NOTE, "format", "sshs_model_hash", "sshs_legacy_hash")


def convert(
    state_dict: Mapping[str, Tensor],
    to: LoRALayout,
    *,
    metadata: Mapping[str, str] | None = None,
    svd_rank: int | None = None,
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Convert a LoRA of any supported layout.

    Args:
        state_dict: the file's tensors: matrices (rows, columns) and alphas ().
        to: kohya, comfyui, diffusers or official.
        metadata: the file's metadata, which is kept. (`read_lora` has added the alphas in it to the tensors.)
        svd_rank: rank of the approximation of what has no exact form in the target layout.

    Returns:
        The new tensors, and the new file's metadata.

    Raises:
        UserError: the layout, keys or kinds are unknown, a kind depends on the base weights (OFT, DoRA of another
            program, ...), or the target does not support a kind and there is no `svd_rank`.
    """
    if to not in LORA_LAYOUTS:
        raise UserError(f"LoRA: unknown layout {to!r}", hint=f"use one of {', '.join(LORA_LAYOUTS)}")
    if svd_rank is not None and svd_rank < 1:
        raise UserError(f"LoRA: --svd-rank {svd_rank}: expected at least 1", hint="use for example --svd-rank 64")
    source = detect_lora_layout(state_dict)
    parts = read_parts(with_alphas(state_dict, metadata or {}))
    modules = join_parts(parts, to)
    notes = [_note_splits(parts, source, to), _note_gaps(parts, to)]
    peft_settings: str | None = None
    if to in ("diffusers", "official"):
        modules, note, peft_settings = _for_peft(modules, to, svd_rank)
        notes.append(note)
    elif to == "comfyui":
        modules, note = _note_differences(modules, parts, svd_rank)
        notes.append(note)
    elif grown := _count_differences(parts) if not any(key.endswith(".diff") for key in state_dict) else 0:
        notes.append(f"{grown} parts of joined LoKr matrices are written as full differences (exact, but large).")
    result = {key: value for key, value in (metadata or {}).items() if key not in _STALE}
    result |= {"format": "pt", CONVERTED_FROM: source, CONVERTED_TO: to, CONVERSION_FORMAT: str(formats.CONVERSION)}
    if note := " ".join(filter(None, notes)):
        result[CONVERSION_NOTE] = note
    if peft_settings is not None:
        result[ADAPTER_METADATA] = peft_settings
    return write_modules(modules, to), result


def _note_splits(parts: Parts, source: LoRALayout, to: LoRALayout) -> str:
    """Note that the target, which separates q, k and v, repeats the down matrix that they share in the source."""
    shared = 0
    for thirds in _joined(parts, source).values():
        apart = all(place_of(part, to).third is None for part in thirds)
        downs = {id(adapter.down) for part in thirds if isinstance(adapter := _adapter(parts[part]), LowRank)}
        shared += apart and len(thirds) > 1 and len(downs) == 1
    return f"{shared} dense joined q, k, v are taken apart: each part repeats all of down (exact)." if shared else ""


def _adapter(change: RowChange) -> RowChange:
    """Return the adapter of a DoRA; every other change as it is."""
    return change.adapter if isinstance(change, ScaledRows) else change


def _note_gaps(parts: Parts, to: LoRALayout) -> str:
    """Note that zeros stand for each of q, k and v without a LoRA in a matrix that joins them."""
    gaps = sum(3 - len(thirds) for thirds in _joined(parts, to).values())
    return f"{gaps} missing parts of joined q, k, v are filled with zeros (exact)." if gaps else ""


def _joined(parts: Parts, layout: LoRALayout) -> dict[str, list[str]]:
    """Return, by module of a layout that joins q, k and v, the parts that it consists of."""
    modules: dict[str, list[str]] = {}
    for part in parts:
        place = place_of(part, layout)
        if place.third is not None:
            modules.setdefault(place.module, []).append(part)
    return modules


def _count_differences(parts: Parts) -> int:
    return sum(isinstance(adapter, Difference) for adapter in parts.values())


def _for_peft(
    modules: dict[str, RowChange], to: LoRALayout, svd_rank: int | None
) -> tuple[dict[str, RowChange], str, str]:
    """Return the modules as PEFT builds them, with alpha = rank, a note, and PEFT's settings as JSON."""
    dora = next((name for name, change in modules.items() if isinstance(change, ScaledRows)), None)
    if dora is not None:
        raise UserError(
            f"LoRA: {dora} is a DoRA, which a file of the {to} layout cannot express: PEFT divides its magnitudes by "
            "other norms, which depend on the base weights",
            hint="convert to comfyui, or merge it into the base model (hv15 merge)",
        )
    prefix = "transformer." if to == "diffusers" else ""
    lokr = {name: adapter for name, adapter in modules.items() if isinstance(adapter, Kronecker)}
    if to == "diffusers" and svd_rank is None and len(lokr) == len(modules):
        built, factor = as_diffusers_builds(lokr)
        return {**built}, "", lokr_settings(built, factor, prefix)
    others = [name for name, adapter in modules.items() if not isinstance(adapter, LowRank)]
    if others and svd_rank is None:
        kinds = sorted({kind_of(modules[name].tensors()) for name in others})
        holds = "only LoRA, or only LoKr" if to == "diffusers" else "LoRA only"
        raise UserError(
            f"LoRA: {len(others)} of {len(modules)} modules have {' or '.join(kinds)}, first {others[0]}; "
            f"a file of the {to} layout can hold {holds}",
            hint="use --svd-rank (for example 64) for the nearest LoRA of that rank, or convert to comfyui",
        )
    modules, note = _approximated(modules, others, svd_rank)
    folded = {name: _folded(adapter) for name, adapter in modules.items() if isinstance(adapter, LowRank)}
    return {**folded}, note, lora_settings(folded, prefix)


def _note_differences(
    modules: dict[str, RowChange], parts: Parts, svd_rank: int | None
) -> tuple[dict[str, RowChange], str]:
    """Approximate or note the modules that became full differences by joining; ComfyUI reads every kind."""
    before = _count_differences(parts)
    grown = [name for name, adapter in modules.items() if isinstance(adapter, Difference)]
    if not grown or before == len(parts):
        return modules, ""
    if svd_rank is None:
        return modules, f"{len(grown)} joined q, k, v matrices are written as full differences (exact, but large)."
    return _approximated(modules, grown, svd_rank)


def _approximated(
    modules: dict[str, RowChange], names: list[str], svd_rank: int | None
) -> tuple[dict[str, RowChange], str]:
    if not names or svd_rank is None:
        return modules, ""
    result, worst = dict(modules), 0.0
    for name in names:
        adapter = modules[name]
        assert isinstance(adapter, Adapter)
        result[name], error = low_rank_of(adapter, svd_rank)
        worst = max(worst, error)
    return result, f"{len(names)} modules are the nearest LoRA of rank {svd_rank}; relative error at most {worst:.2e}."


def _folded(adapter: LowRank) -> LowRank:
    """Return the same LoRA with alpha = rank, for loaders that ignore alpha."""
    return LowRank(adapter.down, scaled(adapter.up, adapter.scale), float(adapter.rank))
