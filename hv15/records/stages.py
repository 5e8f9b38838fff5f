"""The stages of the workflow: what its rules are called, and what a person calls them."""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """A rule of the workflow; downloads are one stage, whichever model they fetch."""

    DEMO_MODELS = "demo_models"
    DOWNLOAD = "download"
    CHECK_MODELS = "check_models"
    PLAN = "plan"
    ENCODE_LATENTS = "encode_latents"
    ENCODE_TEXTS = "encode_texts"
    TRAIN = "train"
    SAMPLE_CONDITION = "sample_condition"
    SAMPLE_LATENTS = "sample_latents"
    SAMPLE_VIDEO = "sample_video"
    SAMPLE_IMAGES = "sample_images"
    CONTACT_SHEET = "contact_sheet"
    CONVERT = "convert"
    PUBLISH = "publish"

    @property
    def words(self) -> str:
        """What a person calls it."""
        return _WORDS[self]


_WORDS = {
    Stage.DEMO_MODELS: "copy the demo's models",
    Stage.DOWNLOAD: "download",
    Stage.CHECK_MODELS: "check the models",
    Stage.PLAN: "plan memory and time",
    Stage.ENCODE_LATENTS: "encode clips",
    Stage.ENCODE_TEXTS: "encode texts",
    Stage.TRAIN: "train",
    Stage.SAMPLE_CONDITION: "encode the first image of",
    Stage.SAMPLE_LATENTS: "sample",
    Stage.SAMPLE_VIDEO: "decode",
    Stage.SAMPLE_IMAGES: "decode to images",
    Stage.CONTACT_SHEET: "contact sheet",
    Stage.CONVERT: "convert to",
    Stage.PUBLISH: "publish",
}


def stage_of(rule: str) -> Stage | None:
    """Return the stage of a rule; None for one that is not of this workflow."""
    try:
        return Stage(rule)
    except ValueError:
        return Stage.DOWNLOAD if rule.startswith(f"{Stage.DOWNLOAD}_") else None


def job_name(rule: str, wildcards: tuple[str, ...] = ()) -> str:
    """Return what a person calls a job, such as `sample red-circle`, `encode clips 3`, `download vae`."""
    stage = stage_of(rule)
    if stage is None:
        return " ".join([rule, *wildcards])
    if stage is Stage.DOWNLOAD:
        wildcards = (rule.removeprefix(f"{stage}_"), *wildcards)
    return " ".join([stage.words, *wildcards])
