"""The cheapest change of settings with which a stage fits: each candidate is planned, not guessed.

The cheapest changes alter no result and cost little time. Then come those that alter no result but cost more time,
those that change rounding, and last those that change the training itself. Single changes are tried first, then more
and more of them together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from hv15.config import Settings
from hv15.config.transformer import MOST_SWAPPED
from hv15.grid import PIXELS_PER_CELL, encodable_side
from hv15.out_of_memory import StageName
from hv15.plan.stage_plan import StagePlan
from hv15.plan.stage_settings import SECTION, section_of
from hv15.plan.stages import StagePlanner
from hv15.plan.workload import ClipBatch
from hv15.records.json_values import Json

Changes = dict[str, Json]
"""Setting -> value."""


@dataclass(frozen=True)
class Remedy:
    """Settings that make a stage fit."""

    stage: StageName
    changes: Changes
    """With the section, e.g. train.blocks_to_swap: 20."""
    planned: StagePlan | None
    """The stage with them; None: nothing was found."""

    def __str__(self) -> str:
        if self.planned is None:
            return f"{self.stage}: nothing in the settings makes it fit: use a larger GPU, or lower resolutions"
        words = ", ".join(f"{name}: {_yaml(value)}" for name, value in self.changes.items())
        return f"{self.stage}: set {words} (then {self.planned.needed / 2**30:.1f} GiB)"


CANDIDATES: dict[StageName, list[Changes]] = {
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
    "denoise": [
        {"guidance_batch": "two_pass"},
        {"split_attn": True},
        {"blocks_to_swap": MOST_SWAPPED},
        {"quantize": "fp8"},
        {"quantize": "nf4"},
    ],
    "decode": [{"vae_enable_patch_conv": True}, {"vae_sample_size": 256}, {"vae_sample_size": 128}],
    "upsample": [{"split_attn": True}, {"blocks_to_swap": MOST_SWAPPED}, {"quantize": "fp8"}, {"quantize": "nf4"}],
    "decode large": [{"vae_enable_patch_conv": True}, {"vae_sample_size": 256}, {"vae_sample_size": 128}],
}
"""Changes in a stage's section, the cheapest first."""
MOVES_TO_THE_MACHINE = {"blocks_to_swap", "gradient_checkpointing_cpu_offload", "text_encoder_cpu"}
"""Settings that move data from the GPU's memory to the machine's."""
_COMPRESSION = {"none": 0, "fp8": 1, "fp8_fast": 1, "int8": 1, "nf4": 2}
"""Value of `quantize` -> a number that is higher when it takes less memory."""


def advise(planner: StagePlanner, name: StageName, memory: int | None = None) -> Remedy | None:
    """Return the cheapest change that makes a stage fit; None if it fits as it is.

    Args:
        memory: bytes that it must fit into; None: the device's.
    """
    limit = planner.device.memory if memory is None else memory
    if planner.stage(name).needed <= limit:
        return None
    settings = planner.project.settings
    candidates = [changes for changes in possible(planner, name) if saves_memory(settings, name, changes)]
    for tried in _orders(candidates):
        changes = _with_checkpointing(tried)
        if planner.stage(name, _changed(settings, name, changes)).needed <= limit:
            return _remedy(planner, name, _with_least_swap(planner, name, changes, limit))
    if name == "train":
        return _smaller_clips(planner, _with_checkpointing(_merged(candidates)), limit)
    return Remedy(name, {}, None)


def possible(planner: StagePlanner, name: StageName) -> Iterator[Changes]:
    """Yield the candidates, with no more blocks to swap than the transformer has.

    On a CPU, settings that move data to the machine's memory are left out.
    """
    from hv15.models.weights.swap import SLOTS

    for changes in CANDIDATES[name]:
        if not planner.device.gpu and MOVES_TO_THE_MACHINE & changes.keys():
            continue
        if "blocks_to_swap" not in changes:
            yield changes
        elif (most := min(MOST_SWAPPED, planner.sizes.dit.num_blocks - SLOTS)) > 0:
            yield {"blocks_to_swap": most}


def _orders(candidates: list[Changes]) -> Iterator[Changes]:
    """Each alone, then the first two together, the first three, ...; later values of a setting replace earlier ones."""
    yield from candidates
    for count in range(2, len(candidates) + 1):
        yield _merged(candidates[:count])


def _merged(candidates: list[Changes]) -> Changes:
    return {name: value for changes in candidates for name, value in changes.items()}


def saves_memory(settings: Settings, name: StageName, changes: Changes) -> bool:
    """Whether a stage takes less memory with changes; the present value may save more than the proposed one."""
    section = section_of(name, settings)
    return any(_saves_more(setting, value, getattr(section, setting)) for setting, value in changes.items())


def _saves_more(setting: str, value: Json, now: Json) -> bool:
    match setting, value, now:
        case "quantize", str(), str():
            return _COMPRESSION[value] > _COMPRESSION[now]
        case "blocks_to_swap", int(), int():
            return value > now
        case "guidance_batch", _, _:  # `auto` is one batch only where that is small
            return now == "batched"
        case "latent_batch" | "text_batch", int(), int():
            return value < now
        case "vae_sample_size", int(), int():  # 0: without tiles
            return now == 0 or value < now
        case _:
            return value != now


def _with_checkpointing(changes: Changes) -> Changes:
    """Swap and offload require gradient checkpointing."""
    needs = changes.get("gradient_checkpointing_cpu_offload") or ("blocks_to_swap" in changes)
    return {"gradient_checkpointing": True, **changes} if needs else changes


def _changed(settings: Settings, name: StageName, changes: Changes) -> Settings:
    """The settings with changes in a stage's section; what the section does not have is left out."""
    section = section_of(name, settings)
    known = {setting: value for setting, value in changes.items() if setting in type(section).model_fields}
    return settings.model_copy(update={SECTION[name]: section.model_copy(update=known)})


def _with_least_swap(planner: StagePlanner, name: StageName, changes: Changes, limit: int) -> Changes:
    """The changes with the fewest blocks to swap that still fit."""
    high = changes.get("blocks_to_swap")
    if not isinstance(high, int):
        return changes
    low = 0
    while high - low > 1:
        middle = (low + high) // 2
        settings = _changed(planner.project.settings, name, {**changes, "blocks_to_swap": middle})
        if planner.stage(name, settings).needed <= limit:
            high = middle
        else:
            low = middle
    return {**changes, "blocks_to_swap": high}


def _remedy(planner: StagePlanner, name: StageName, changes: Changes, clips: ClipBatch | None = None) -> Remedy:
    settings = planner.project.settings
    section = section_of(name, settings)
    fields = type(section).model_fields
    different = {key: value for key, value in changes.items() if key in fields and getattr(section, key) != value}
    return Remedy(
        name,
        {f"{SECTION[name]}.{key}": value for key, value in different.items()},
        planner.stage(name, _changed(settings, name, changes), clips),
    )


def _smaller_clips(planner: StagePlanner, changes: Changes, limit: int) -> Remedy:
    """With all of the changes: one clip a batch, then fewer frames, then a smaller picture."""
    settings = _changed(planner.project.settings, "train", changes)
    for clips, words in _reductions(planner.work.batch):
        if planner.stage("train", settings, clips).needed <= limit:
            found = _remedy(planner, "train", changes, clips)
            return replace(found, changes={**found.changes, **words})
    return Remedy("train", {}, None)


def _reductions(batch: ClipBatch) -> Iterator[tuple[ClipBatch, Changes]]:
    """Smaller and smaller batches, each with the settings that lead to it."""
    alone = replace(batch, samples=1)
    yield alone, {"datasets batch_size": 1}
    for frames in (61, 33, 17, 1):
        if frames < batch.frames:
            yield replace(alone, frames=frames), {"datasets target_frames": [frames]}
    for part in (0.75, 0.5):
        height, width = (max(PIXELS_PER_CELL, encodable_side(int(side * part))) for side in (batch.height, batch.width))
        smaller = ClipBatch(1, min(17, batch.frames), height, width)
        yield smaller, {"datasets target_frames": [smaller.frames], "datasets resolution": [width, height]}


def _yaml(value: Json) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
