"""`hv15 timesteps` as a user runs it: in a folder with a config and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from hv15.config import TrainSettings
from hv15.train.noise_shares import noise_bins, weight_shares
from tests.commands.workbench import hv15, is_a_refusal


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(
        "models: {source: demo}\n"
        "datasets: [{video_directory: clips}]\n"
        "train: {timestep_sampling: sigma, discrete_flow_shift: 1,\n"
        "  min_timestep: 100, preserve_distribution_shape: true}\n"
    )
    return tmp_path


def shares(text: str) -> list[float]:
    return [float(each) for each in re.findall(r"^ *\d+ - +\d+ +([\d.]+) %", text, re.MULTILINE)]


def test_the_table_is_of_this_training(project: Path) -> None:
    said = hv15("timesteps", project)
    assert said.code == 0
    first = said.out.splitlines()[0]
    assert first == "timestep_sampling sigma, discrete_flow_shift 1, min_timestep 100, preserve_distribution_shape true"
    found = shares(said.out)
    assert len(found) == 20
    assert found[:3] == [0.0, 0.0, pytest.approx(50 / 901 * 100, abs=0.06)]  # 900 steps of 1000, with both ends
    assert sum(found) == pytest.approx(100, abs=1)
    assert "half below 550" in said.out
    assert "weight" not in said.out


def test_weights_and_buckets_are_shown_if_there_are_any(project: Path) -> None:
    weights = '{"train": {"weighting_scheme": "cosmap", "num_timestep_buckets": 5}}'
    said = hv15("timesteps", project, "--overrides", weights)
    assert "num_timestep_buckets 5, weighting_scheme cosmap" in said.out
    assert "of all weight" in said.out
    assert "of 5 samples in a row, one is from each of 5 equally probable parts" in said.out


def test_a_picture_is_drawn_the_same_each_time(project: Path) -> None:
    weighted = ("--overrides", '{"train": {"weighting_scheme": "min_snr"}}')
    for name in ("a.png", "b/c.PNG", "d.svg"):
        said = hv15("timesteps", project, "--out", project / name, *weighted)
        assert f"drawn into {project / name}" in said.out
    with Image.open(project / "a.png") as picture:
        assert (picture.format, picture.width) == ("PNG", 1080)
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 50
    assert ElementTree.parse(project / "d.svg").getroot().tag.endswith("svg")
    assert (project / "a.png").read_bytes() == (project / "b" / "c.PNG").read_bytes()
    assert "dc:date" not in (project / "d.svg").read_text()


def test_a_picture_that_cannot_be_drawn(project: Path) -> None:
    is_a_refusal(hv15("timesteps", project, "--out", project / "a.jpg"), ("a.jpg", ".png, .svg or .pdf"))
    assert [path.name for path in project.iterdir()] == ["config.yaml"]
    assert hv15("timesteps", project).code == 0


def test_bins_add_up_with_their_weights() -> None:
    options = TrainSettings(timestep_sampling="uniform", weighting_scheme="debiased")
    bins = noise_bins(options, 10)
    assert [each.share for each in bins] == pytest.approx([0.1] * 10)
    middles = [each.low + 0.05 for each in bins]
    exact = [middle * (1 - middle) - 0.1**2 / 12 for middle in middles]  # the mean of s - s^2 over a tenth
    assert [each.weight for each in bins] == pytest.approx(exact, rel=1e-3)
    assert weight_shares(bins) == pytest.approx([each / sum(exact) for each in exact], rel=1e-3)
