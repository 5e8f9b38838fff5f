"""The cheapest change of settings with which a stage fits: each candidate is planned, not guessed.

Cheap is what changes no number and costs little time; then what changes no number; then rounding; last what changes the
training itself. Single changes are tried first, then more and more of them together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from hv15.config import Settings
from hv15.plan.stages import SECTION, Name, Planner, Stage
from hv15.plan.workload import Clips

MOST_SWAPPED = 51


@dataclass(frozen=True)
class Advice:
    """Settings that make a stage fit."""

    stage: Name
    changes: dict[str, Any]
    """Setting -> value, e.g. train.blocks_to_swap: 20."""
    planned: Stage | None
    """The stage with them; None: nothing was found."""

    def __str__(self) -> str:
        if self.planned is None:
            return f"{self.stage}: nothing in the settings makes it fit: use a larger GPU, or lower resolutions"
        words = ", ".join(f"{name}: {_yaml(value)}" for name, value in self.changes.items())
        return f"{self.stage}: set {words} (then {self.planned.needed / 2**30:.1f} GiB)"


CANDIDATES: dict[Name, list[dict[str, Any]]] = {
    "encode latents": [
        {"latent_batch": 1},
        {"vae_enable_patch_conv": True},
        {"vae_sample_size": 256},
        {"vae_sample_size": 128},
    ],
    "encode texts": [{"text_batch": 1}, {"fp8_vl": True}, {"text_encoder_cpu": True}],
    "condition": [{"vae_enable_patch_conv": True}],
    "train": [
        {"gradient_checkpointing": True},
        {"split_attn": True},
        {"gradient_checkpointing_cpu_offload": True},
        {"blocks_to_swap": MOST_SWAPPED},
        {"quantize": "fp8"},
        {"quantize": "nf4"},
    ],
    "denoise": [{"split_attn": True}, {"blocks_to_swap": MOST_SWAPPED}, {"quantize": "fp8"}, {"quantize": "nf4"}],
    "decode": [{"vae_enable_patch_conv": True}, {"vae_sample_size": 256}, {"vae_sample_size": 128}],
}
"""In the order of their price."""
_SMALL = {"none": 0, "fp8": 1, "fp8_fast": 1, "int8": 1, "nf4": 2}


def advise(planner: Planner, name: Name, memory: int | None = None) -> Advice | None:
    """The cheapest change that makes a stage fit; None if it fits as it is.

    Args:
        memory: bytes that it must fit into; None: the device's.
    """
    limit = planner.device.memory if memory is None else memory
    if planner.stage(name).needed <= limit:
        return None
    section = SECTION.get(name, "sample")
    candidates = [
        change for change in _possible(planner, name) if _is_change(planner.project.settings, section, change)
    ]
    for changes in _orders(candidates):
        settings = _with(planner.project.settings, section, _consistent(changes))
        if planner.stage(name, settings).needed <= limit:
            found = _least_swap(planner, name, section, _consistent(changes), limit)
            return _result(planner, name, section, found)
    return (
        _smaller_clips(planner, _consistent(_merged(candidates)), limit) if name == "train" else Advice(name, {}, None)
    )


def _possible(planner: Planner, name: Name) -> Iterator[dict[str, Any]]:
    """The candidates, with no more blocks to swap than the transformer has."""
    from hv15.models.weights.swap import SLOTS

    for change in CANDIDATES[name]:
        if "blocks_to_swap" not in change:
            yield change
        elif (most := min(MOST_SWAPPED, planner.blocks - SLOTS)) > 0:
            yield {"blocks_to_swap": most}


def _orders(candidates: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each alone, then the first two together, the first three, ...; later values of a setting replace earlier ones."""
    yield from candidates
    for count in range(2, len(candidates) + 1):
        yield _merged(candidates[:count])


def _merged(candidates: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: value for change in candidates for name, value in change.items()}


def _is_change(settings: Settings, section: str, change: dict[str, Any]) -> bool:
    """Whether it takes less memory than what is set; what is set already may be more than what is proposed."""
    return any(_saves_more(name, value, getattr(getattr(settings, section), name)) for name, value in change.items())


def _saves_more(name: str, value: Any, now: Any) -> bool:
    match name:
        case "quantize":
            return _SMALL[value] > _SMALL[now]
        case "blocks_to_swap":
            return value > now
        case "latent_batch" | "text_batch":
            return value < now
        case "vae_sample_size":  # 0: without tiles
            return now == 0 or value < now
        case _:
            return value != now


def _consistent(changes: dict[str, Any]) -> dict[str, Any]:
    """Swap and offload ask for checkpointing."""
    needs = changes.get("gradient_checkpointing_cpu_offload") or ("blocks_to_swap" in changes)
    return {"gradient_checkpointing": True, **changes} if needs else changes


def _with(settings: Settings, section: str, changes: dict[str, Any]) -> Settings:
    part = getattr(settings, section)
    fitting = {name: value for name, value in changes.items() if name in type(part).model_fields}
    return settings.model_copy(update={section: part.model_copy(update=fitting)})


def _least_swap(planner: Planner, name: Name, section: str, changes: dict[str, Any], limit: int) -> dict[str, Any]:
    """The fewest blocks to swap that still fit."""
    if "blocks_to_swap" not in changes:
        return changes
    low, high = 0, changes["blocks_to_swap"]
    while high - low > 1:
        middle = (low + high) // 2
        settings = _with(planner.project.settings, section, {**changes, "blocks_to_swap": middle})
        if planner.stage(name, settings).needed <= limit:
            high = middle
        else:
            low = middle
    return {**changes, "blocks_to_swap": high}


def _result(planner: Planner, name: Name, section: str, changes: dict[str, Any], clips: Clips | None = None) -> Advice:
    settings = planner.project.settings
    kept = {key: value for key, value in changes.items() if _is_a_change(settings, section, key, value)}
    return Advice(
        name,
        {f"{section}.{key}": value for key, value in kept.items()},
        planner.stage(name, _with(settings, section, changes), clips),
    )


def _is_a_change(settings: Settings, section: str, key: str, value: Any) -> bool:
    part = getattr(settings, section)
    return key in type(part).model_fields and getattr(part, key) != value


def _smaller_clips(planner: Planner, changes: dict[str, Any], limit: int) -> Advice:
    """With all of that: one clip a batch, then fewer frames, then a smaller picture."""
    clips = replace(planner.work.batch, samples=1)
    tried: list[tuple[Clips, dict[str, Any]]] = [(clips, {"datasets batch_size": 1})]
    for frames in (61, 33, 17, 1):
        if frames < clips.frames:
            tried.append((replace(clips, frames=frames), {"datasets target_frames": [frames]}))
    for part in (0.75, 0.5):
        height, width = (max(16, int(side * part) // 16 * 16) for side in (clips.height, clips.width))
        smaller = Clips(1, min(17, clips.frames), height, width)
        tried.append((smaller, {"datasets target_frames": [smaller.frames], "datasets resolution": [width, height]}))
    settings = _with(planner.project.settings, "train", changes)
    for smaller, words in tried:
        if planner.stage("train", settings, smaller).needed <= limit:
            found = _result(planner, "train", "train", changes, smaller)
            return replace(found, changes={**found.changes, **words})
    return Advice("train", {}, None)


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
