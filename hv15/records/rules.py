"""The rules of the workflow: their names, and what they do in words."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from hv15.records.outputs import DECODED
from hv15.records.paths import EncodedKind


class Rule(StrEnum):
    """A rule that makes a project's results.

    There is also a rule for each kind of decoded output (hv15.records.outputs) and for each downloaded model, such as
    `download_vae`.
    """

    DEMO_MODELS = "demo_models"
    CHECK_MODELS = "check_models"
    ENCODE_LATENTS = "encode_latents"
    ENCODE_TEXTS = "encode_texts"
    ENCODE_MASKS = "encode_masks"
    TRAIN = "train"
    KEEP_CHECKPOINT = "keep_checkpoint"
    CONDITION_SHARD = "condition_shard"
    SAMPLE_CONDITION = "sample_condition"
    SAMPLE_SHARD = "sample_shard"
    SAMPLE_LATENTS = "sample_latents"
    UPSAMPLE_SHARD = "upsample_shard"
    UPSAMPLE_LATENTS = "upsample_latents"
    CONTACT_SHEET = "contact_sheet"
    SAMPLE_GRID = "sample_grid"
    CONVERT = "convert"
    PUBLISH = "publish"
    REPORT = "report"
    CARD = "card"
    CHECKPOINT_LATENTS = "checkpoint_latents"
    CHECKPOINT_GRID = "checkpoint_grid"
    COMPARISON = "comparison"
    PLAN = "plan"
    REPRODUCE = "reproduce"


class TargetRule(StrEnum):
    """A rule that makes nothing by itself: a target that stands for what others make."""

    ALL = "all"
    """Everything, the report and the model card too; Snakemake's own target, if none is named."""
    SAMPLES = "samples"
    """All samples."""
    EXPERIMENTS = "experiments"
    """The LoRAs of all experiments, with all that belongs to them."""


ENCODING_RULES: dict[EncodedKind, Rule] = {
    "latents": Rule.ENCODE_LATENTS,
    "text": Rule.ENCODE_TEXTS,
    "masks": Rule.ENCODE_MASKS,
}
"""The rule that makes the manifests of each kind."""

_WORDS: dict[str, str] = {
    Rule.DEMO_MODELS: "copy the demo's models",
    Rule.CHECK_MODELS: "check the model files",
    Rule.ENCODE_LATENTS: "encode clips",
    Rule.ENCODE_TEXTS: "encode captions and prompts",
    Rule.ENCODE_MASKS: "encode masks",
    Rule.TRAIN: "train the LoRA",
    Rule.KEEP_CHECKPOINT: "keep the LoRA of step",
    Rule.CONDITION_SHARD: "encode first images, shard",
    Rule.SAMPLE_CONDITION: "encode a first image",
    Rule.SAMPLE_SHARD: "sample several, shard",
    Rule.SAMPLE_LATENTS: "sample",
    **{output.rule: f"decode to {output.name}" for output in DECODED},
    Rule.UPSAMPLE_SHARD: "enlarge several, shard",
    Rule.UPSAMPLE_LATENTS: "enlarge",
    **{output.enlarging_rule: f"decode the enlarged to {output.name}" for output in DECODED},
    Rule.CHECKPOINT_LATENTS: "sample with the LoRA of step",
    **{output.rule_of("step"): f"decode to {output.name}, of step" for output in DECODED},
    Rule.CHECKPOINT_GRID: "draw the samples of all checkpoints side by side",
    Rule.CONTACT_SHEET: "draw the samples side by side",
    Rule.SAMPLE_GRID: "draw the samples of all strengths and LoRAs side by side",
    Rule.CONVERT: "convert the LoRA",
    Rule.PUBLISH: "publish the LoRA",
    Rule.COMPARISON: "compare the experiments",
    Rule.REPORT: "put all results on one page",
    Rule.CARD: "write the model card",
    Rule.PLAN: "plan memory and time",
    Rule.REPRODUCE: "make a LoRA again",
}


def rule_words(rule: str) -> str:
    """Return what a rule does, for a person; for an unknown rule, its name."""
    return _WORDS.get(rule, rule.replace("_", " "))


def job_name(rule: str, wildcards: Iterable[str] = (), experiment: str = "") -> str:
    """Return a job's name for a person, such as `sample red-circle`, `encode clips 3`, `small: train the LoRA`."""
    return (f"{experiment}: " if experiment else "") + " ".join([rule_words(rule), *wildcards])
