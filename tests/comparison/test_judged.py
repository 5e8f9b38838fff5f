"""Samples of the demo's world are judged by what they show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hv15.comparison.judged import with_judged_samples
from hv15.comparison.trainings import ComparedTraining
from hv15.data.encode import read_video_metadata, write_video
from hv15.demo.world import SIZE, Scene, render
from hv15.records.paths import ProjectPaths
from tests.comparison.made_up import make_sample

UNJUDGED = ComparedTraining("one", {})


def add(paths: ProjectPaths, name: str, asked: Scene, shown: Scene) -> None:
    """A sample whose prompt asks for one scene and which shows another."""
    file = make_sample(paths, name, 0, prompt=asked.caption, height=SIZE, width=SIZE)
    write_video(file, render(shown, 1), metadata=read_video_metadata(file))


def test_the_share_of_samples_that_show_their_prompts(tmp_path: Path) -> None:
    paths = ProjectPaths(tmp_path)
    assert with_judged_samples(UNJUDGED, paths).samples_right is None
    make_sample(paths, "cat", 100)
    assert with_judged_samples(UNJUDGED, paths).samples_right is None, "it is of another world"
    asked = Scene("square", "red", "right", "black")
    add(paths, "right", asked, asked)
    assert with_judged_samples(UNJUDGED, paths).samples_right == 1.0
    add(paths, "wrong", asked, replace(asked, motion="down"))
    add(paths, "right.base", asked, replace(asked, motion="left"))
    assert with_judged_samples(UNJUDGED, paths).samples_right == 0.5
