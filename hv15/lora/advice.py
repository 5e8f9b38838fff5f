"""Advice on LoRAs that are used on another kind of checkpoint than they were trained on. Does not need torch.

See hv15.models.advice.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hv15.models.variants import VARIANTS, Variant, detect_variant
from hv15.records.json_values import RecordError, as_object, parse_object, text_of
from hv15.records.metadata import CONFIG, KOHYA_BASE_NAME, TASK


def about_lora(file: Path | str, metadata: Mapping[str, str], variant: Variant) -> list[str]:
    """Return advice about using a LoRA file on a checkpoint, as far as its metadata says what it was trained on."""
    name = Path(file).name
    trained = _trained_on(metadata)
    task = metadata.get(TASK) or (trained.task if trained else variant.task)
    origin = f"{task} on {trained.name}" if trained else task
    if task != variant.task:
        missing = "it never saw a first frame" if task == "t2v" else "it learnt to continue a first frame"
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
    """Return the checkpoint that a LoRA was trained on, from hv15's settings or kohya's file name in its metadata."""
    try:
        models = as_object(parse_object(metadata.get(CONFIG, "{}")).get("models", {}))
    except RecordError:  # another program may have written anything there
        models = {}
    name, path = text_of(models, "variant"), text_of(models, "dit")
    if name in VARIANTS:
        return VARIANTS[name]
    for written in (path, metadata.get(KOHYA_BASE_NAME, "")):
        # As an absolute path: a relative one refers to the training's folder, not to that of this process.
        if found := detect_variant(Path("/", written)):
            return found.variant
    return None
