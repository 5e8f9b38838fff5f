"""Sentences for LoRAs used where they were not made for (see hv15.models.advice). No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hv15.models.variants import VARIANTS, Variant, detect_variant
from hv15.records.json_values import RecordError, as_object, parse_object, text_of
from hv15.records.metadata import CONFIG, KOHYA_BASE_NAME, TASK


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
        models = as_object(parse_object(metadata.get(CONFIG, "{}")).get("models", {}))
    except RecordError:  # whatever somebody wrote there
        models = {}
    name, path = text_of(models, "variant"), text_of(models, "dit")
    if name in VARIANTS:
        return VARIANTS[name]
    for written in (path, metadata.get(KOHYA_BASE_NAME, "")):
        # From the root on: a relative path began in the folder of that training, not in the one of this process.
        if found := detect_variant(Path("/", written)):
            return found.variant
    return None
