from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from hv15.figures import FORMATS
from hv15.models import load_dit, load_vae
from hv15.train import curves
from tests.commands.workbench import Workbench, config
from tests.workflow.conftest import clip_names, demo_clips, demo_models  # noqa: F401  (fixtures)
from tests.workflow.project import copy_clips

CLIPS = 3


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory, demo_models: Path, demo_clips: Path) -> Workbench:  # noqa: F811
    """A project of which nothing has run; not to be changed."""
    bench = Workbench(tmp_path_factory.mktemp("fresh"))
    copy_clips(demo_clips, bench.clips, clip_names(demo_clips)[:CLIPS])
    (bench.root / "config.yaml").write_text(yaml.safe_dump(config(demo_models)))
    return bench


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, fresh: Workbench) -> Workbench:
    """A project that was encoded, trained and sampled by commands; not to be changed."""
    bench = copy_of(fresh, tmp_path_factory.mktemp("finished"))
    bench.encode()
    with drawn_at_once():
        bench.train()
    bench.sample()
    return bench


@pytest.fixture
def project(fresh: Workbench, tmp_path: Path) -> Workbench:
    """A project of one's own of which nothing has run."""
    return copy_of(fresh, tmp_path)


@pytest.fixture
def done(finished: Workbench, tmp_path: Path) -> Workbench:
    """A finished project of one's own, whose files the index knows."""
    bench = copy_of(finished, tmp_path)
    assert bench.project.dataset.sources
    return bench


@contextmanager
def drawn_at_once() -> Iterator[None]:
    """The charts of a training are empty files: real ones (tests/train/test_curves.py) take longer than it does."""

    def save(curve: curves.TrainingCurve, place: Path) -> list[Path]:
        files = [place.with_suffix(suffix) for suffix in FORMATS]
        place.parent.mkdir(parents=True, exist_ok=True)
        for file in files:
            file.touch()
        return files

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "_save", save)
        yield


@pytest.fixture(scope="module", autouse=True)
def charts() -> Iterator[None]:
    with drawn_at_once():
        yield


@pytest.fixture
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The map from latents to colors is fitted on few and small pictures: another map, in a hundredth of the time."""
    for name, value in {"_PICTURES": 4, "_HELD_OUT": 1, "_SIDE": 32}.items():
        monkeypatch.setattr(f"hv15.sample.latent_colors.{name}", value)


def copy_of(bench: Workbench, folder: Path) -> Workbench:
    return Workbench(shutil.copytree(bench.root, folder / "project"))


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often the transformer and the VAE are loaded."""
    counted = {"dit": 0, "vae": 0}

    def counting(name: str, load: object) -> object:
        def loaded(*words: object, **named: object) -> object:
            counted[name] += 1
            return load(*words, **named)  # type: ignore[operator]

        return loaded

    monkeypatch.setattr("hv15.models.ready.load_dit", counting("dit", load_dit))
    monkeypatch.setattr("hv15.sample.decode.load_vae", counting("vae", load_vae))
    return counted
