"""The changes of a LoRA in the form that PEFT builds, for the layouts of diffusers, the official code and PEFT."""

from __future__ import annotations

from typing import NamedTuple

from hv15.choices import LoRALayout
from hv15.errors import UserError
from hv15.lora.adapters import Adapter, Hadamard, Kronecker, LowRank, RowChange, low_rank_of, scaled
from hv15.lora.base_norms import Weights, with_changed_norms
from hv15.lora.diffusers_lokr import as_diffusers_builds
from hv15.lora.dora import ScaledRows
from hv15.lora.formats import Parts, join_parts
from hv15.lora.kinds import kind_of
from hv15.lora.peft import loha_settings, lokr_settings, lora_settings

_HOLDS: dict[LoRALayout, str] = {
    "diffusers": "only LoRA, or only LoKr",
    "peft": "only LoRA, only LoHa, or only LoKr",
    "official": "LoRA only",
}


class PeftExport(NamedTuple):
    """The modules of a file with alpha = rank, what was approximated, and PEFT's settings as JSON."""

    modules: dict[str, RowChange]
    note: str
    settings: str


def for_peft(parts: Parts, to: LoRALayout, svd_rank: int | None, weights: Weights | None) -> PeftExport:
    """Return the changes as PEFT builds them.

    Args:
        weights: of the base, which a DoRA needs: PEFT divides its magnitudes by the norms of the changed weight.

    Raises:
        UserError: the layout cannot hold the kinds, and there is no `svd_rank`; or a DoRA without `weights`.
    """
    dora = next((part for part, change in parts.items() if isinstance(change, ScaledRows)), None)
    if dora is not None:
        if weights is None:
            raise UserError(
                f"LoRA: {dora} is a DoRA, which a file of the {to} layout cannot express without the base weights: "
                "PEFT divides its magnitudes by other norms, which depend on them",
                hint="give the transformer that it is used on, --base FILE; or convert to comfyui",
            )
        parts = with_changed_norms(parts, weights)
    modules = join_parts(parts, to)
    prefix = "transformer." if to == "diffusers" else ""
    adapters = {name: change.adapter if isinstance(change, ScaledRows) else change for name, change in modules.items()}
    if dora is None and svd_rank is None and to != "official":
        if all(isinstance(adapter, Kronecker) for adapter in adapters.values()):
            lokr = {name: adapter for name, adapter in adapters.items() if isinstance(adapter, Kronecker)}
            built, factor = as_diffusers_builds(lokr)
            return PeftExport({**built}, "", lokr_settings(built, factor, prefix))
        if to == "peft" and all(isinstance(adapter, Hadamard) for adapter in adapters.values()):
            loha = {name: _folded_loha(each) for name, each in adapters.items() if isinstance(each, Hadamard)}
            return PeftExport({**loha}, "", loha_settings(loha))
    others = [name for name, adapter in adapters.items() if not isinstance(adapter, LowRank)]
    if others and svd_rank is None:
        kinds = sorted({kind_of(adapters[name].tensors()) for name in others})
        raise UserError(
            f"LoRA: {len(others)} of {len(modules)} modules have {' or '.join(kinds)}, first {others[0]}; "
            f"a file of the {to} layout can hold {_HOLDS[to]}",
            hint="use --svd-rank (for example 64) for the nearest LoRA of that rank, or convert to comfyui",
        )
    adapters, note = approximated(adapters, others, svd_rank)
    folded = {name: _folded(adapter) for name, adapter in adapters.items() if isinstance(adapter, LowRank)}
    settings = lora_settings(folded, prefix, dora=dora is not None)
    if dora is None:
        return PeftExport({**folded}, note, settings)
    magnitudes = {name: change.magnitude for name, change in modules.items() if isinstance(change, ScaledRows)}
    return PeftExport({name: ScaledRows(folded[name], magnitudes[name]) for name in folded}, note, settings)


def approximated(
    modules: dict[str, RowChange], names: list[str], svd_rank: int | None
) -> tuple[dict[str, RowChange], str]:
    """Replace some modules by their nearest LoRA of a rank, and say how far off they are."""
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


def _folded_loha(adapter: Hadamard) -> Hadamard:
    return Hadamard(scaled(adapter.w1_a, adapter.scale), adapter.w1_b, adapter.w2_a, adapter.w2_b, float(adapter.rank))
