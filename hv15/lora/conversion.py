"""Converts LoRA files from one layout to another exactly: every weight is changed by the same difference.

| to | what is written |
|---|---|
| kohya | separate q, k, v; alpha; the layout that hv15 writes (musubi-tuner reads it) |
| comfyui | joined q, k, v; alpha; ComfyUI's names after `diffusion_model.` |
| comfyui_kohya | the same modules after `lora_unet_`, with `_` for each dot |
| diffusers | `transformer.` names; alpha goes into up (LoKr: w1), because its loader ignores `.alpha` tensors |
| official | as diffusers, with the official code's names and no prefix |
| peft | as diffusers, with PEFT's prefix; PEFT's config file is written beside it |

LoHa and LoKr convert exactly to kohya and ComfyUI, except that q, k and v joined for ComfyUI are a LoKr only if the
three share w2; else they become a full difference, or with `svd_rank` the nearest LoRA. diffusers reads LoRA, or LoKr
that all have the same factor (see `hv15.lora.diffusers_lokr`); PEFT also LoHa; the official code only LoRA. Everything
else needs `svd_rank` for these three.

DoRA by the norms of the base weights, which hv15 trains, converts to kohya and ComfyUI. For all other layouts, and for
all other kinds that depend on the base weights, these must be given (`hv15.lora.base_norms`).
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from hv15.choices import LoRALayout
from hv15.errors import UserError
from hv15.lora.adapters import Difference, LowRank, RowChange
from hv15.lora.base_norms import Weights, complete_joined, read_with_base
from hv15.lora.dora import ScaledRows
from hv15.lora.formats import PEFT_LAYOUTS, Parts, join_parts, read_parts, write_modules
from hv15.lora.kinds import detect_lora_layout
from hv15.lora.names import LORA_LAYOUTS, place_of
from hv15.lora.peft import ADAPTER_METADATA, with_alphas
from hv15.lora.peft_export import approximated, for_peft
from hv15.records import formats
from hv15.records.metadata import CONVERSION_FORMAT, CONVERSION_NOTE, CONVERTED_FROM, CONVERTED_TO, DORA_NORM

_STALE = (ADAPTER_METADATA, CONVERSION_NOTE, DORA_NORM, "format", "sshs_model_hash", "sshs_legacy_hash")


def convert(
    state_dict: Mapping[str, Tensor],
    to: LoRALayout,
    *,
    metadata: Mapping[str, str] | None = None,
    svd_rank: int | None = None,
    weights: Weights | None = None,
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Convert a LoRA of any supported layout.

    Args:
        state_dict: the file's tensors: matrices (rows, columns) and alphas ().
        to: the target layout.
        metadata: the file's metadata, which is kept. (`read_lora` has added the alphas in it to the tensors.)
        svd_rank: rank of the approximation of what has no exact form in the target layout.
        weights: of the model that the LoRA is used on, for kinds that depend on it.

    Returns:
        The new tensors, and the new file's metadata.

    Raises:
        UserError: the layout, keys or kinds are unknown, a kind depends on the base weights (OFT, DoRA of another
            program, ...) and there are no `weights`, or the target does not support a kind and there is no `svd_rank`.
    """
    if to not in LORA_LAYOUTS:
        raise UserError(f"LoRA: unknown layout {to!r}", hint=f"use one of {', '.join(LORA_LAYOUTS)}")
    if svd_rank is not None and svd_rank < 1:
        raise UserError(f"LoRA: --svd-rank {svd_rank}: expected at least 1", hint="use for example --svd-rank 64")
    source = detect_lora_layout(state_dict)
    given = with_alphas(state_dict, metadata or {})
    parts = read_parts(given) if weights is None else read_with_base(given, weights)
    notes = [_note_splits(parts, source, to), _note_gaps(parts, to)]
    if to in PEFT_LAYOUTS:
        modules, note, peft_settings = for_peft(parts, to, svd_rank, weights)
        notes.append(note)
        return write_modules(modules, to), _metadata(metadata or {}, source, to, notes, peft_settings)
    modules = join_parts(parts if weights is None else complete_joined(parts, to, weights), to)
    if to in ("comfyui", "comfyui_kohya"):
        modules, note = _note_differences(modules, parts, svd_rank)
        notes.append(note)
    elif grown := _count_differences(parts) if not any(key.endswith(".diff") for key in state_dict) else 0:
        notes.append(f"{grown} parts of joined LoKr matrices are written as full differences (exact, but large).")
    return write_modules(modules, to), _metadata(metadata or {}, source, to, notes)


def _metadata(
    metadata: Mapping[str, str], source: LoRALayout, to: LoRALayout, notes: list[str], peft_settings: str | None = None
) -> dict[str, str]:
    """Return the new file's metadata: the source's, except what became wrong."""
    result = {key: value for key, value in metadata.items() if key not in _STALE}
    result |= {"format": "pt", CONVERTED_FROM: source, CONVERTED_TO: to, CONVERSION_FORMAT: str(formats.CONVERSION)}
    if note := " ".join(filter(None, notes)):
        result[CONVERSION_NOTE] = note
    if peft_settings is not None:
        result[ADAPTER_METADATA] = peft_settings
    return result


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
    return approximated(modules, grown, svd_rank)
