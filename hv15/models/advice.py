"""Sentences for choices that work and are seldom meant: what a checkpoint was made for, and what it is used for.

Pure functions from facts and settings to sentences, each with its cure. What cannot work is a UserError elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hv15.models.facts import CheckpointFacts
from hv15.models.variants import VARIANTS, FoundVariant, Task, Variant, detect_variant

TASK, CONFIG = "hv15.task", "hv15.config"
"""Metadata of a LoRA: the task that it was trained for, and all settings of its training as JSON."""

_BOUNDARY = 640 * 960  # pixels; between the areas of the official sizes, 640 x 640 and 960 x 960
_TYPICAL = {480: "480 x 848", 720: "720 x 1280"}


def about_checkpoint(facts: CheckpointFacts, task: Task) -> list[str]:
    """What there is to say about the transformer's file, whatever it is used for."""
    found = facts.variant
    if found is None:
        return []
    sentences = _about_name(found, facts.detected) + _about_meanflow(found, meanflow=facts.meanflow)
    variant = found.variant
    if variant.sparse:
        sentences.append(
            f"{variant.name} was distilled for block-sparse attention; here it runs with dense attention, without the "
            f"published speed-up: {variant.name.removesuffix('_sparse')} is its counterpart that was made for that"
        )
    if task != variant.task and found.source != "default":
        sentences.append(
            f"task is {task}, but {variant.name} was made for {variant.task}: "
            f"set models.dit to a {task} checkpoint, or task to {variant.task}"
        )
    if facts.quantisation == "fp8":
        sentences.append(
            "float8 weights without scales are the coarsest of all formats: use the fp8_scaled file, or the bfloat16 "
            "file with quantize: fp8, which takes the same memory"
        )
    return sentences


def _about_name(found: FoundVariant, detected: FoundVariant | None) -> list[str]:
    if found.source == "default":
        return [
            f"neither config.json nor the path tells which checkpoint this is, so {found.name} is a guess: set "
            "models.variant (it decides guidance, shift and steps of the samples), or name the folder or the file "
            "after the checkpoint, e.g. 720p_t2v"
        ]
    if found.source == "models.variant" and detected is not None and detected.name != found.name:
        return [
            f"models.variant says {found.name}, but the file is {detected}: correct models.variant, or set it to auto"
        ]
    if found.unknown:
        return [
            f"{found.unknown} is not a published checkpoint, so the samples take the defaults of {found.name} "
            f"({found.variant.defaults}): set sample.infer_steps, guidance_scale and flow_shift as its makers say"
        ]
    return []


def _about_meanflow(found: FoundVariant, *, meanflow: bool) -> list[str]:
    """Whether the tensors contradict the name: the published step-distilled checkpoint has time_r_in, no other has."""
    if meanflow and not found.variant.step_distilled:
        return [
            f"the file has the time_r_in tensors of a step-distilled checkpoint, but it is taken for {found}: if it is "
            "step-distilled, set models.variant to 480p_i2v_step_distilled, for 12 steps without guidance"
        ]
    if found.variant.step_distilled and not meanflow:
        return [
            f"taken for {found}, but the file has no time_r_in tensors, which that checkpoint has: it may be another; "
            "if so, set models.variant"
        ]
    return []


def about_memory(facts: CheckpointFacts, section: str, quantize: str) -> list[str]:
    """What there is to say about the number format in which a section of the config, train or sample, holds a file."""
    if not facts.in_fp8 or quantize.startswith("fp8"):
        return []
    if quantize == "none":
        return [
            f"the file is in float8, and {section}.quantize: none makes plain numbers of it, two or four times as "
            f"large and no better: {section}.quantize: fp8 keeps it as it is"
        ]
    return [
        f"the file is in float8 already, and {section}.quantize: {quantize} rounds it once more: use the bfloat16 "
        f"file, or {section}.quantize: fp8, which keeps it as it is"
    ]


def about_training(facts: CheckpointFacts, quantize: str) -> list[str]:
    """What there is to say about training on this file, held as `train.quantize` says."""
    sentences = about_memory(facts, "train", quantize)
    if facts.dtype == "float16" or facts.in_fp8:
        better = "bfloat16 file with train.quantize: fp8" if facts.in_fp8 else "bfloat16 or float32 file"
        sentences.append(
            f"{facts.dtype} weights are the published ones rounded once more, and the LoRA is trained for these: "
            f"use the {better}"
        )
    if facts.variant is None:
        return sentences
    variant = facts.variant.variant
    if facts.meanflow:
        sentences.append(
            "a mean-flow checkpoint is trained as a plain flow (time_r_in is told a step of no length), so a LoRA does "
            f"not learn its long steps: train on {variant.base}, and use the LoRA with either"
        )
    elif variant.distilled:
        sentences.append(
            f"training on {variant.name} wears its distillation off, because a LoRA learns velocities without "
            f"guidance: train on {variant.base}, and use the LoRA with either"
        )
    return sentences


def about_sizes(variant: Variant, sizes: Mapping[tuple[int, int], int]) -> list[str]:
    """What there is to say about a dataset with so many clips of each (height, width) in pixels: whether most of them
    are of the class of sizes that the checkpoint was not made for."""
    others = {size: count for size, count in sizes.items() if _resolution(*size) != variant.resolution}
    count, total = sum(others.values()), sum(sizes.values())
    if 2 * count <= total:
        return []
    (height, width), _ = max(others.items(), key=lambda item: (item[1], item[0]))
    which = f"{count} of {total} clips are of {_resolution(height, width)}p sizes (most: {height} x {width})"
    return [f"{variant.name} was made for {variant.resolution}p sizes, but {which}: {_cure(variant, height, width)}"]


def about_sample(variant: Variant, *, height: int, width: int, steps: int, guidance_scale: float) -> list[str]:
    """What there is to say about a sample's settings; sizes in pixels."""
    sentences = []
    if guidance_scale > 1 >= variant.guidance_scale:
        sentences.append(
            f"guidance_scale {guidance_scale:g}: {variant.name} was distilled to be sampled with 1, which is also "
            "twice as fast: remove guidance_scale, or use the base checkpoint"
        )
    if variant.fitting_steps and steps not in variant.fitting_steps:
        sentences.append(f"infer_steps {steps}: {variant.name}: {variant.note}: remove infer_steps")
    if (found := _resolution(height, width)) != variant.resolution:
        sentences.append(
            f"video_size {height} x {width} is a {found}p size, but {variant.name} was made for {variant.resolution}p: "
            f"{_cure(variant, height, width)}"
        )
    return sentences


def about_lora(file: Path | str, metadata: Mapping[str, str], variant: Variant) -> list[str]:
    """What there is to say about using a LoRA file on a checkpoint, as far as the file tells where it comes from."""
    name = Path(file).name
    trained = _trained_on(metadata)
    task = metadata.get(TASK) or (trained.task if trained else variant.task)
    origin = f"{task} on {trained.name}" if trained else task
    if task != variant.task:
        missing = "it never saw a first frame" if task == "t2v" else "it learnt to go on from a first frame"
        return [
            f"{name} was trained for {origin}, but {variant.name} is for {variant.task}: it fits, but {missing}; "
            f"use a LoRA trained for {variant.task}, or a {task} checkpoint"
        ]
    if trained is not None and trained.base != variant.base:
        return [
            f"{name} was trained for {origin} and is used on {variant.name}: it fits, but may act more weakly; compare "
            "with sample.with_base, or train it again on this checkpoint"
        ]
    return []


def _trained_on(metadata: Mapping[str, str]) -> Variant | None:
    """The checkpoint that a LoRA was trained on: by the settings that hv15 writes into it, or by the file name that
    kohya's metadata keep."""
    try:
        models: dict[str, Any] = json.loads(metadata.get(CONFIG, "{}")).get("models") or {}
        name, path = models.get("variant"), models.get("dit") or ""
    except (ValueError, TypeError, AttributeError):  # whatever somebody wrote there
        name, path = None, ""
    if name in VARIANTS:
        return VARIANTS[name]
    for written in (path, metadata.get("ss_sd_model_name", "")):
        # From the root on: a relative path began in the folder of that training, not in the one of this process.
        if found := detect_variant(Path("/", str(written))):
            return found.variant
    return None


def _resolution(height: int, width: int) -> int:
    """The class of sizes, 480 or 720, that a video belongs to by its area."""
    return 720 if height * width > _BOUNDARY else 480


def _cure(variant: Variant, height: int, width: int) -> str:
    other = f"{_resolution(height, width)}p_{variant.task}"
    return f"use {other}, or a size near {_TYPICAL[variant.resolution]}"
