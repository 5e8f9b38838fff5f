"""Advice on samples that work but are seldom intended (see hv15.models.advice). Does not need torch."""

from __future__ import annotations

from hv15.models.variants import Variant, size_class


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
