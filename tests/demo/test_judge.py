"""The sentence counts what the samples show: tried with rendered clips in their place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hv15.demo.clips import concept_scenes
from hv15.demo.judge import what_changed
from hv15.demo.world import Scene, render
from hv15.sample.contact_sheet import SheetRow

CIRCLE = Scene("circle", "red", "right", "black")


def row(scene: Scene, without: Scene | None, with_lora: Scene, prompt: str | None = None) -> SheetRow:
    base = None if without is None else render(without, 1)
    return SheetRow(prompt or scene.caption, render(with_lora, 2), base)


def test_counts_samples_that_show_the_concept() -> None:
    rows = [row(scene, replace(scene, motion="right"), scene) for scene in concept_scenes()[:4]]
    assert what_changed(rows) == "zorpward: 0 of 4 samples without the LoRA, 4 of 4 with it"
    rows[0] = row(concept_scenes()[0], concept_scenes()[0], replace(concept_scenes()[0], motion="up"))
    assert what_changed(rows) == "zorpward: 1 of 4 samples without the LoRA, 3 of 4 with it"


def test_counts_other_prompts_that_show_the_colour_and_motion_they_ask_for() -> None:
    zorp = concept_scenes()[0]
    rows = [
        row(zorp, CIRCLE, zorp),
        row(CIRCLE, CIRCLE, CIRCLE),
        row(CIRCLE, CIRCLE, replace(CIRCLE, motion="zorpward")),
        row(CIRCLE, CIRCLE, replace(CIRCLE, motion="left")),
    ]
    assert what_changed(rows) == (
        "zorpward: 0 of 1 samples without the LoRA, 1 of 1 with it; "
        "other prompts right: 3 of 3 samples without the LoRA, 1 of 3 with it"
    )


def test_says_nothing_of_what_it_cannot_judge() -> None:
    assert what_changed([row(CIRCLE, None, CIRCLE), row(CIRCLE, CIRCLE, CIRCLE, prompt="a cat")]) == ""
    larger = np.zeros((9, 96, 96, 3), np.uint8)
    assert what_changed([SheetRow(CIRCLE.caption, larger, larger)]) == ""
