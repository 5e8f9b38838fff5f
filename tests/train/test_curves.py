"""Pictures of a training: what they show, and that equal records give equal files."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hv15.figures import save_figure
from hv15.records.metrics import QUANTILE_COUNT, SIGMA_BINS, MetricsRecord, StepRecord, ValidationRecord, metrics_line
from hv15.train.curves import Line, curves_of, draw_curves, draw_figure, thinned

CHARTS = ["gradient_norm", "learning_rate", "loss", "loss_by_sigma", "memory"]
NAMES = [f"{name}.{suffix}" for name in CHARTS for suffix in ("png", "svg")]


def step(number: int) -> StepRecord:
    bins = tuple(None if (number + each) % 3 else 0.1 * each + 1 / number for each in range(SIGMA_BINS))
    return StepRecord(
        step=number,
        time=0.0,
        epoch=number / 10,
        loss=1 / number,
        loss_by_sigma=bins,
        lr=1e-4,
        grad_norm=1.0,
        samples_per_s=1.0,
        data_wait_s=0.0,
        step_s=1.0,
        tokens_per_s=1.0,
        memory=1.0,
        memory_peak=1.0,
    )


def write(path: Path, *records: MetricsRecord) -> Path:
    path.write_text("".join(json.dumps(metrics_line(record)) + "\n" for record in records))
    return path


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("curves")
    validations = [ValidationRecord(step=number, time=0.0, loss=0.5) for number in (10, 20)]
    metrics = write(root / "metrics.jsonl", *map(step, range(1, 31)), *validations)
    with metrics.open("a") as file:
        file.write('{"kind": "step", "torn')
    for folder in ("one", "again"):
        assert len(draw_curves(metrics, root / folder)) == len(NAMES)
    return root


def test_each_chart_is_a_png_and_an_svg(drawn: Path) -> None:
    assert sorted(path.name for path in (drawn / "one").iterdir()) == NAMES
    for name in NAMES:
        assert (drawn / "one" / name).read_bytes() == (drawn / "again" / name).read_bytes()


def test_the_validation_is_in_the_chart_of_the_loss(drawn: Path, tmp_path: Path) -> None:
    """Orange is the colour of the validation alone."""
    without = write(tmp_path / "metrics.jsonl", *map(step, range(1, 31)))
    save_figure(draw_figure(curves_of(without)["loss"], (8, 4.5)), tmp_path / "without/loss.png")
    orange = [_count(folder / "loss.png", (255, 127, 14)) for folder in (drawn / "one", tmp_path / "without")]
    assert orange[0] > 100
    assert orange[1] == 0


def test_a_training_of_one_step_is_seen(tmp_path: Path) -> None:
    curves = curves_of(write(tmp_path / "metrics.jsonl", step(1)))
    for name in ("loss", "learning_rate", "gradient_norm", "memory"):
        save_figure(draw_figure(curves[name], (8, 4.5)), tmp_path / f"{name}.png")
        assert _count(tmp_path / f"{name}.png", (31, 119, 180)) > 20, name


def _count(path: Path, colour: tuple[int, int, int]) -> int:
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return int((abs(pixels - colour).max(-1) < 8).sum())


@pytest.mark.slow
def test_a_validation_with_noise_levels_has_a_chart_of_its_own(tmp_path: Path) -> None:
    """A level that no clip was measured at has no line."""
    losses = [0.1 * level if level else None for level in range(QUANTILE_COUNT)]
    validations = [
        ValidationRecord(
            step=number, loss=0.5, loss_by_quantile=(*losses,), trained_loss_by_quantile=(*losses,), sigmas=(0.5,) * 9
        )
        for number in (10, 20)
    ]
    draw_curves(write(tmp_path / "metrics.jsonl", *map(step, range(1, 31)), *validations), tmp_path)
    drawn = (tmp_path / "validation_by_sigma.svg").read_text()
    assert [f"<!-- 0.{level} (0.50) -->" in drawn for level in range(1, 10)] == [False, *[True] * 8]


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    assert draw_curves(write(tmp_path / "metrics.jsonl"), tmp_path / "curves") == []
    assert not (tmp_path / "curves").exists()


@pytest.mark.parametrize(("count", "points"), [(1, 1), (7, 7), (8, 4), (15, 5), (100_000, 7)])
def test_a_long_line_is_thinned_to_means(count: int, points: int) -> None:
    line = thinned(Line(range(count), [float(value) for value in range(count)]), most=7)
    assert len(line.steps) == points
    assert list(line.steps) == list(line.values)
    sizes = [math.ceil(count / 7) or 1] * points
    sizes[-1] = count - sum(sizes[:-1])
    assert sum(size * value for size, value in zip(sizes, line.values, strict=True)) == sum(range(count))
