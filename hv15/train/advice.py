"""Advice on trainings that work but are seldom intended (see hv15.models.advice). Does not need torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hv15.config import DatasetSettings
from hv15.models.advice import about_memory
from hv15.models.facts import CheckpointFacts
from hv15.models.variants import Variant, size_class


def about_training(facts: CheckpointFacts, quantize: str) -> list[str]:
    """Return advice about training on this file; `quantize` is `train.quantize`."""
    sentences = about_memory(facts, "train", quantize)
    if facts.dtype == "float16" or facts.in_fp8:
        better = "bfloat16 file with train.quantize: fp8" if facts.in_fp8 else "bfloat16 or float32 file"
        sentences.append(
            f"{facts.dtype} weights are the published ones rounded once more, and the LoRA would be trained for "
            f"the rounded ones: use the {better}"
        )
    if facts.variant is None:
        return sentences
    variant = facts.variant.variant
    if facts.meanflow:
        sentences.append(
            "a mean-flow checkpoint is trained as a plain flow (time_r_in gets a step of length 0), so a LoRA does "
            f"not learn its long steps: train on {variant.base}, and use the LoRA with either"
        )
    elif variant.distilled:
        sentences.append(
            f"training on {variant.name} undoes its distillation, because a LoRA learns velocities without "
            f"guidance: train on {variant.base}, and use the LoRA with either"
        )
    return sentences


def about_lengths(datasets: Iterable[DatasetSettings], longest_sample: int) -> dict[int, str]:
    """What there is to say about videos of which single frames are trained, by the dataset's number.

    Args:
        longest_sample: in frames.
    """
    return {
        number: "target_frames is [1], so each video gives single frames and the LoRA learns no motion, but samples "
        f"have {longest_sample} frames: set target_frames to lengths such as [{min(longest_sample, 25)}]"
        for number, dataset in enumerate(datasets)
        if dataset.kind == "video" and dataset.frame_extraction != "full" and dataset.target_frames == (1,)
        if longest_sample > 1
    }


def about_sizes(variant: Variant, sizes: Mapping[tuple[int, int], int]) -> list[str]:
    """Return advice about the sizes of a dataset's clips if most are not of the class that the checkpoint is for.

    Args:
        sizes: the number of clips of each (height, width) in pixels.
    """
    others = {size: count for size, count in sizes.items() if size_class(*size) != variant.resolution}
    count, total = sum(others.values()), sum(sizes.values())
    if 2 * count <= total:
        return []
    (height, width), _ = max(others.items(), key=lambda item: (item[1], item[0]))
    which = f"{count} of {total} clips are of {size_class(height, width)}p sizes (most: {height} x {width})"
    cure = variant.cure_for_size(height, width)
    return [f"{variant.name} was made for {variant.resolution}p sizes, but {which}: {cure}"]
