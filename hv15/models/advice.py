"""Advice about a checkpoint: sentences on choices that work but are seldom intended.

This is the advice that holds for any use of the checkpoint; for one use it is in hv15.train.advice, hv15.sample.advice
and hv15.lora.advice. All are pure functions from facts and settings to sentences, each with its cure. A choice that
cannot work is a UserError instead.
"""

from __future__ import annotations

from hv15.choices import Task
from hv15.models.facts import CheckpointFacts
from hv15.models.variants import FoundVariant


def about_checkpoint(facts: CheckpointFacts, task: Task) -> list[str]:
    """Return advice about the transformer's file that holds for any use of it."""
    found = facts.variant
    if found is None:
        return []
    sentences = _about_name(found, facts.detected) + _about_meanflow(found, meanflow=facts.meanflow)
    variant = found.variant
    if variant.sparse:
        sentences.append(
            f"{variant.name} was distilled for block-sparse attention; here it runs with dense attention, without the "
            f"published speed-up: use {variant.name.removesuffix('_sparse')}, its counterpart for dense attention"
        )
    if not variant.published:
        sentences.append(
            f"{variant.name} was announced, but it had not been published when this version of hv15 was made: if the "
            "file is another one, correct models.variant"
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
            f"({found.variant.defaults}): set sample.infer_steps, guidance_scale and flow_shift as its makers advise"
        ]
    return []


def _about_meanflow(found: FoundVariant, *, meanflow: bool) -> list[str]:
    """Say if the tensors contradict the name: only the published step-distilled checkpoint has time_r_in."""
    if meanflow and not found.variant.step_distilled:
        return [
            f"the file has the time_r_in tensors of a step-distilled checkpoint, but it is taken to be {found}: if it "
            "is step-distilled, set models.variant to 480p_i2v_step_distilled, for 12 steps without guidance"
        ]
    if found.variant.step_distilled and not meanflow:
        return [
            f"the file is taken to be {found}, but it lacks the time_r_in tensors which that checkpoint has: "
            "if it is another checkpoint, set models.variant"
        ]
    return []


def about_memory(facts: CheckpointFacts, section: str, quantize: str) -> list[str]:
    """Return advice about the number format in which a stage holds the file's weights.

    Args:
        section: the section of the config, train or sample.
        quantize: its setting.
    """
    if not facts.in_fp8 or quantize.startswith("fp8"):
        return []
    if quantize == "none":
        return [
            f"the file is in float8, and {section}.quantize: none expands it to two or four times the memory without "
            f"a gain in quality: use {section}.quantize: fp8, which keeps it as it is"
        ]
    return [
        f"the file is in float8 already, and {section}.quantize: {quantize} rounds it once more: use the bfloat16 "
        f"file, or {section}.quantize: fp8, which keeps it as it is"
    ]
