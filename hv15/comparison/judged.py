"""How many of a training's samples show what their prompts say, where that can be measured: in the demo's world."""

from __future__ import annotations

from dataclasses import replace

from hv15.comparison.samples import find_samples
from hv15.comparison.trainings import ComparedTraining
from hv15.demo.measure import measure, scene_of
from hv15.demo.world import SIZE
from hv15.records.paths import ProjectPaths


def with_judged_samples(training: ComparedTraining, paths: ProjectPaths) -> ComparedTraining:
    """Return a training with the share of its samples whose colour and motion are those of their prompts.

    Samples without its LoRA do not count, nor do those whose prompts are not of the demo's world.

    Raises:
        UserError: a sample is damaged.
    """
    from hv15.sample.contact_sheet import read_sample

    right = []
    for spec, file in find_samples(paths).values():
        scene = scene_of(spec.prompt)
        if scene is not None and spec.lora_multiplier is not None and (spec.height, spec.width) == (SIZE, SIZE):
            right.append(measure(read_sample(file)).moves_as(scene))
    return replace(training, samples_right=sum(right) / len(right)) if right else training
