"""Advice on samples that work but are seldom intended (see hv15.models.advice). Does not need torch."""

from __future__ import annotations

from hv15.config.sample import SampleSettings
from hv15.models.super_resolution import SUPER_RESOLUTIONS
from hv15.models.variants import Variant, size_class
from hv15.sample.prompts import Enlarged
from hv15.sample.resolutions import enlarged_size, is_official_size

_WITH_GRAPHS_OF_THEIR_OWN = ("reduce-overhead", "max-autotune")


def about_sample(variant: Variant, *, height: int, width: int, steps: int, guidance_scale: float) -> list[str]:
    """Return advice about a sample's settings; height and width are in pixels."""
    sentences = []
    if guidance_scale > 1 >= variant.guidance_scale:
        sentences.append(
            f"guidance_scale {guidance_scale:g}: {variant.name} was distilled for a guidance of 1, which is also "
            "twice as fast: remove guidance_scale, or use the base checkpoint"
        )
    if variant.fitting_steps and steps not in variant.fitting_steps:
        sentences.append(f"infer_steps {steps}: {variant.name}: {variant.note}: remove infer_steps")
    if (found := size_class(height, width)) != variant.resolution:
        sentences.append(
            f"video_size {height} x {width} is a {found}p size, but {variant.name} was made for {variant.resolution}p: "
            f"{variant.cure_for_size(height, width)}"
        )
    return sentences


def about_enlarging(enlarges: Enlarged, *, height: int, width: int) -> list[str]:
    """Return advice about sizes that the official program would refuse; height and width are those of the large one."""
    chosen = SUPER_RESOLUTIONS[enlarges.resolution]
    official = is_official_size(enlarges.height, enlarges.width, chosen.low)
    if official and (height, width) == enlarged_size(enlarges.height, enlarges.width, chosen.resolution):
        return []
    return [
        f"{enlarges.width}x{enlarges.height} to {width}x{height} is not an official pair of sizes for {chosen.name}: "
        "the published models were not made for it, and the official program refuses it"
    ]


def about_graphs(settings: SampleSettings) -> list[str]:
    """Return advice about CUDA graphs beside the other settings of `sample:`."""
    if not settings.cuda_graphs or (obstacle := obstacle_to_graphs(settings)) is None:
        return []
    return [f"sample.cuda_graphs has no effect with sample.{obstacle}: remove one of them"]


def obstacle_to_graphs(settings: SampleSettings) -> str | None:
    """Return the setting, with its value, with which a pass of the transformer cannot be recorded; None if it can."""
    if settings.step_cache.rule != "none":  # passes differ from step to step
        return f"step_cache: {{rule: {settings.step_cache.rule}}}"
    if settings.blocks_to_swap:  # copies on a second stream, which the host waits for
        return f"blocks_to_swap: {settings.blocks_to_swap}"
    if settings.context_parallel > 1:  # the ranks exchange
        return f"context_parallel: {settings.context_parallel}"
    if settings.quantize in ("int8", "nf4"):  # bitsandbytes runs on streams and buffers of its own
        return f"quantize: {settings.quantize}"
    if settings.compile and settings.compile_mode in _WITH_GRAPHS_OF_THEIR_OWN:
        return f"compile_mode: {settings.compile_mode}"
    if settings.compile and "cudagraphs" in settings.compile_backend:
        return f"compile_backend: {settings.compile_backend}"
    return None
