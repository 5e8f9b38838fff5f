"""`hv15 sample` with columns: strengths, LoRAs, kept steps and seeds side by side."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from hv15.data.images import read_image
from hv15.project.metadata import product_metadata
from hv15.records.paths import copy_of_step
from hv15.sample.checkpoint_grid import draw_film, draw_grid, film_scale, read_line
from hv15.sample.contact_sheet import read_sample
from tests.commands.sampling import SMALL, made, spec_of
from tests.commands.workbench import LORA, Workbench


@pytest.mark.slow
def test_strengths_are_compared_on_a_sheet(done: Workbench, tmp_path: Path, loads: dict[str, int]) -> None:
    out = tmp_path / "out"
    words = ("sample", "a red circle", "a blue square", *SMALL, "--lora", done.root / LORA, "--strength", "0", "1", "4")
    files = made(done.hv15(*words, "-o", out))
    assert loads == {"dit": 1, "vae": 1}
    *samples, video = files
    assert [[lora.multiplier for lora in spec_of(file).loras] for file in samples] == [
        [],
        [],
        [1.0],
        [1.0],
        [4.0],
        [4.0],
    ]
    assert video.name.startswith("sheet-")
    picture = video.with_suffix(".png")
    labels = ["no LoRA", "strength 1", "strength 4"]
    scale = film_scale([(64, 64)] * 2, 3)
    prompts = ("a red circle", "a blue square")
    lines = [read_line(prompt, samples[number::2], 24.0, scale) for number, prompt in enumerate(prompts)]
    assert np.array_equal(read_image(picture), draw_grid(lines, labels))
    film, _ = draw_film(lines, labels)
    played = read_sample(video)
    assert played.shape == film.shape
    assert abs(played.astype(int) - film.astype(int)).mean() < 6  # x264
    stamps = [file.stat().st_mtime_ns for file in (picture, video)]
    again = done.hv15(*words, "-o", out)
    assert again.err.count("already there") == 6
    assert [file.stat().st_mtime_ns for file in (picture, video)] == stamps
    more = made(done.hv15(*words, "0.5", "-o", out))
    assert loads == {"dit": 2, "vae": 2}
    assert len({*more} - {*files}) == 3  # two samples and a sheet


def test_loras_and_kept_steps_are_compared(done: Workbench, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    shutil.copy(done.root / LORA, other)
    done.paths.checkpoints.mkdir(parents=True, exist_ok=True)
    shutil.copy(done.root / LORA, done.paths.checkpoints / copy_of_step(1))
    words = ("--compare", f"{other}:2", "--checkpoint", "1", "--seed", "1", "-o", tmp_path / "out")
    files = made(done.hv15("sample", "a red circle", *SMALL, *words))
    assert len(files) == 3
    assert [spec_of(file).loras[0].multiplier for file in files[:2]] == [2.0, 1.0]
    assert "other" in files[0].name
    assert "step-1-" in files[1].name


def test_seeds_side_by_side(done: Workbench, tmp_path: Path) -> None:
    words = ("sample", "a red circle", *SMALL, "--seed", "1", "2", "--sheet", "-o", tmp_path / "out")
    *samples, video = made(done.hv15(*words))
    lines = [read_line("a red circle", samples, 24.0, film_scale([(64, 64)], 2))]
    assert np.array_equal(read_image(video.with_suffix(".png")), draw_grid(lines, ["seed 1", "seed 2"]))


@pytest.mark.slow
def test_a_sheet_without_metadata_tells_nothing(done: Workbench, tmp_path: Path) -> None:
    words = ("sample", "a red circle", *SMALL, "--seed", "1", "2", "--sheet", "--no-metadata", "-o", tmp_path / "out")
    *_, video = made(done.hv15(*words))
    assert product_metadata(video) == product_metadata(video.with_suffix(".png")) == {}
    stamp = video.stat().st_mtime_ns
    assert done.hv15(*words).code == 0
    assert video.stat().st_mtime_ns == stamp


@pytest.mark.slow
def test_many_rows_make_several_sheets(done: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hv15.commands.sample_sheets.MOST_ROWS", 2)
    words = ("sample", "one", "two", "three", *SMALL[:-1], "1", "--guidance", "1", "--sheet", "-o", tmp_path / "out")
    made(done.hv15(*words))
    sheets = sorted(tmp_path.joinpath("out").glob("sheet-*.png"))
    assert [sheet.stem[-2:] for sheet in sheets] == ["-1", "-2"]
    assert read_image(sheets[0]).shape[0] > read_image(sheets[1]).shape[0]
