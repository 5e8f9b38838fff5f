"""The projects of bench/bench_growth.py are what they stand for: finished ones."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from hv15.project import Project
from hv15.workflow import make_planner
from tests.workflow.project import REPOSITORY

EXPERIMENTS = 1


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(REPOSITORY / "bench")
    bench = importlib.import_module("growth_project")
    bench.write_clips(tmp_path, range(3))
    bench.write_config(tmp_path, EXPERIMENTS)
    bench.make_everything(tmp_path, EXPERIMENTS)
    return tmp_path


def due(root: Path) -> set[str]:
    """The stages that would run."""
    return {*make_planner(Project(root / "config.yaml"), targets=("experiments",)).running}


def test_nothing_is_to_be_done_until_a_caption_is_edited(root: Path) -> None:
    assert due(root) == set()
    (root / "clips" / "000001.txt").write_text("another caption")
    found = due(root)
    assert {name.partition("/")[2] for name in found} >= {"train", "publish", "sample_latents.cyan-down"}
    assert sum(name.startswith("encode_texts.") for name in found) == 1
    assert sum(name.endswith("/train") for name in found) == EXPERIMENTS
