"""Pictures of a training's records, by matplotlib: loss, validation, both by noise level, learning rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hv15.figures import FORMATS, save_figure
from hv15.records.metrics import (
    QUANTILE_COUNT,
    SIGMA_BINS,
    SMOOTHING,
    StepRecord,
    ValidationRecord,
    measures,
    read_records,
)
from hv15.train.smoothed import SmoothedLoss

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_POINTS = 1000
"""Of a line; more steps are averaged in groups of equal size."""


class Line(NamedTuple):
    """Values at numbers of finished steps."""

    steps: Sequence[float]
    values: Sequence[float]


def draw_curves(metrics: Path, folder: Path) -> list[Path]:
    """Draw what a metrics file has, each chart as a PNG and an SVG in a folder; return the files.

    Equal records give equal files.

    Raises:
        OSError: the file cannot be read.
        UserError: a picture cannot be written.
    """
    records = list(read_records(metrics))
    steps = [record for record in records if isinstance(record, StepRecord)]
    validations = [record for record in records if isinstance(record, ValidationRecord)]
    if not steps:
        return []
    charts: dict[str, Callable[[Axes], None]] = {
        "loss": lambda axes: _draw_loss(axes, steps, validations),
        "loss_by_sigma": lambda axes: _draw_loss_by_sigma(axes, steps),
        "learning_rate": lambda axes: _draw_learning_rate(axes, steps),
    }
    if any(record.loss_by_quantile for record in validations):
        charts["validation_by_sigma"] = lambda axes: _draw_validation_by_sigma(axes, validations)
    return [path for name, draw in charts.items() for path in _save(draw, folder / name)]


def thinned(line: Line, most: int = MOST_POINTS) -> Line:
    """Return a line of at most `most` points: the means of groups of equal size, the last one perhaps smaller."""
    size = -(-len(line.steps) // most) or 1
    groups = range(0, len(line.steps), size)
    means = [[sum(part) / len(part) for part in (row[start : start + size] for start in groups)] for row in line]
    return Line(*means)


def _draw_loss(axes: Axes, steps: Sequence[StepRecord], validations: Sequence[ValidationRecord]) -> None:
    good = [(record.step, record.loss) for record in steps if record.loss is not None]
    numbers, losses, smooth = [step for step, _ in good], [loss for _, loss in good], SmoothedLoss()
    axes.plot(*thinned(Line(numbers, losses)), color="tab:blue", alpha=0.3, linewidth=0.8, label="each step")
    axes.plot(*thinned(Line(numbers, [smooth.update(loss) for loss in losses])), color="tab:blue", label="running mean")
    if validations:
        labels = {name: measure.label for name, measure in measures(ValidationRecord).items()}
        for label, style, values in (
            (labels["loss"], "o-", [record.loss for record in validations]),
            (labels["trained_loss"], "o:", [record.trained_loss for record in validations]),
        ):
            pairs = zip(validations, values, strict=True)
            points = [(record.step, value) for record, value in pairs if value is not None]
            if points:
                at, found = [step for step, _ in points], [value for _, value in points]
                axes.plot(at, found, style, color="tab:orange", markersize=4, label=label)
    axes.set_ylabel("loss")
    axes.legend(frameon=False)


def _draw_loss_by_sigma(axes: Axes, steps: Sequence[StepRecord]) -> None:
    from matplotlib import colormaps

    colours = colormaps["viridis"]
    for number in range(SIGMA_BINS):
        found = [(record.step, loss) for record in steps if (loss := record.loss_by_sigma[number]) is not None]
        if found:
            smooth, (at, losses) = SmoothedLoss(), zip(*found, strict=True)
            line = thinned(Line(at, [smooth.update(loss) for loss in losses]))
            share = number / (SIGMA_BINS - 1)
            axes.plot(
                *line, color=colours(0.95 * share), label=f"{number / SIGMA_BINS:g} to {(number + 1) / SIGMA_BINS:g}"
            )
    axes.set_ylabel(f"loss, running mean ({SMOOTHING:g})")
    figure = axes.get_figure()
    assert figure is not None
    figure.legend(loc="outside right upper", frameon=False, title="sigma", fontsize="small", reverse=True)


def _draw_validation_by_sigma(axes: Axes, validations: Sequence[ValidationRecord]) -> None:
    """Draw a line for each noise level, and a dotted one of the clips that are trained on."""
    from matplotlib import colormaps

    colours = colormaps["viridis"]
    for level in range(QUANTILE_COUNT):
        label = f"{(level + 1) / (QUANTILE_COUNT + 1):g}"
        if level < len(validations[-1].sigmas):
            label += f" ({validations[-1].sigmas[level]:.2f})"
        colour = colours(0.95 * level / (QUANTILE_COUNT - 1))
        for style, name, values in (
            ("o-", label, [record.loss_by_quantile for record in validations]),
            ("o:", None, [record.trained_loss_by_quantile for record in validations]),
        ):
            pairs = zip(validations, values, strict=True)
            points = [
                (record.step, loss)
                for record, losses in pairs
                if level < len(losses) and (loss := losses[level]) is not None
            ]
            if points:
                axes.plot(*zip(*points, strict=True), style, color=colour, markersize=4, label=name)
    axes.set_ylabel("validation loss; dotted: trained clips")
    figure = axes.get_figure()
    assert figure is not None
    title = "quantile (sigma)"
    figure.legend(loc="outside right upper", frameon=False, title=title, fontsize="small", reverse=True)


def _draw_learning_rate(axes: Axes, steps: Sequence[StepRecord]) -> None:
    axes.plot(*thinned(Line([record.step for record in steps], [record.lr for record in steps])), color="tab:blue")
    axes.set_ylabel("learning rate")
    axes.set_ylim(bottom=0)


def _save(draw: Callable[[Axes], None], stem: Path) -> list[Path]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    draw(axes)
    axes.set_xlabel("step")
    axes.spines[["top", "right"]].set_visible(False)
    paths = [stem.with_suffix(suffix) for suffix in FORMATS]
    for path in paths:
        save_figure(figure, path)
    return paths
