"""Pictures of a training's records, by matplotlib: loss, validation, learning rate, gradients, memory."""

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
from hv15.units import GIB

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_POINTS = 1000
"""Of a line; more steps are averaged in groups of equal size."""


class Line(NamedTuple):
    """Values at numbers of finished steps."""

    steps: Sequence[float]
    values: Sequence[float]


class TrainingCurve(NamedTuple):
    """A chart of a training."""

    title: str
    draw: Callable[[Axes], None]


def curves_of(metrics: Path) -> dict[str, TrainingCurve]:
    """Return the charts of what a metrics file has, by name; none if it has no steps.

    Raises:
        OSError: the file cannot be read.
    """
    records = list(read_records(metrics))
    steps = [record for record in records if isinstance(record, StepRecord)]
    validations = [record for record in records if isinstance(record, ValidationRecord)]
    if not steps:
        return {}
    curves = {"loss": TrainingCurve("Loss", lambda axes: _draw_loss(axes, steps, validations))}
    if any(record.loss_by_quantile for record in validations):
        curves["validation_by_sigma"] = TrainingCurve(
            "Validation by noise level", lambda axes: _draw_validation_by_sigma(axes, validations)
        )
    return curves | {
        "loss_by_sigma": TrainingCurve("Loss by noise level", lambda axes: _draw_loss_by_sigma(axes, steps)),
        "learning_rate": TrainingCurve("Learning rate", lambda axes: _draw_learning_rate(axes, steps)),
        "gradient_norm": TrainingCurve("Gradient norm", lambda axes: _draw_gradient_norm(axes, steps)),
        "memory": TrainingCurve("Memory", lambda axes: _draw_memory(axes, steps)),
    }


def draw_curves(metrics: Path, folder: Path) -> list[Path]:
    """Draw what a metrics file has, each chart as a PNG and an SVG in a folder; return the files.

    Equal records give equal files.

    Raises:
        OSError: the file cannot be read.
        UserError: a picture cannot be written.
    """
    return [path for name, curve in curves_of(metrics).items() for path in _save(curve, folder / name)]


def draw_figure(curve: TrainingCurve, size: tuple[float, float]) -> Figure:
    """Draw a chart of this width and height in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    curve.draw(axes)
    axes.set_xlabel("step")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def level_colours(count: int) -> list[str]:
    """Return the colours of so many noise levels, from the least noise to the most, as #rrggbb."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps["viridis"](0.95 * number / (count - 1))) for number in range(count)]


def thinned(line: Line, most: int = MOST_POINTS) -> Line:
    """Return a line of at most `most` points: the means of groups of equal size, the last one perhaps smaller."""
    size = -(-len(line.steps) // most) or 1
    groups = range(0, len(line.steps), size)
    means = [[sum(part) / len(part) for part in (row[start : start + size] for start in groups)] for row in line]
    return Line(*means)


def _draw_line(axes: Axes, line: Line, *, colour: str, alpha: float = 1.0, width: float = 1.5, label: str = "") -> None:
    """Draw a line; of a single point a dot, since nothing would be seen of a line."""
    line = thinned(line)
    style = "-" if len(line.steps) > 1 else "o"
    axes.plot(*line, style, color=colour, alpha=alpha, linewidth=width, markersize=4, label=label or None)


def _draw_loss(axes: Axes, steps: Sequence[StepRecord], validations: Sequence[ValidationRecord]) -> None:
    good = [(record.step, record.loss) for record in steps if record.loss is not None]
    numbers, losses, smooth = [step for step, _ in good], [loss for _, loss in good], SmoothedLoss()
    _draw_line(axes, Line(numbers, losses), colour="tab:blue", alpha=0.3, width=0.8, label="each step")
    mean = Line(numbers, [smooth.update(loss) for loss in losses])
    _draw_line(axes, mean, colour="tab:blue", label="running mean")
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
    colours = level_colours(SIGMA_BINS)
    for number in range(SIGMA_BINS):
        found = [(record.step, loss) for record in steps if (loss := record.loss_by_sigma[number]) is not None]
        if found:
            smooth, (at, losses) = SmoothedLoss(), zip(*found, strict=True)
            line = Line(at, [smooth.update(loss) for loss in losses])
            label = f"{number / SIGMA_BINS:g} to {(number + 1) / SIGMA_BINS:g}"
            _draw_line(axes, line, colour=colours[number], label=label)
    axes.set_ylabel(f"loss, running mean ({SMOOTHING:g})")
    figure = axes.get_figure()
    assert figure is not None
    figure.legend(loc="outside right upper", frameon=False, title="sigma", fontsize="small", reverse=True)


def _draw_validation_by_sigma(axes: Axes, validations: Sequence[ValidationRecord]) -> None:
    """Draw a line for each noise level, and a dotted one of the clips that are trained on."""
    colours = level_colours(QUANTILE_COUNT)
    for level in range(QUANTILE_COUNT):
        label = f"{(level + 1) / (QUANTILE_COUNT + 1):g}"
        if level < len(validations[-1].sigmas):
            label += f" ({validations[-1].sigmas[level]:.2f})"
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
                axes.plot(*zip(*points, strict=True), style, color=colours[level], markersize=4, label=name)
    axes.set_ylabel("validation loss; dotted: trained clips")
    figure = axes.get_figure()
    assert figure is not None
    title = "quantile (sigma)"
    figure.legend(loc="outside right upper", frameon=False, title=title, fontsize="small", reverse=True)


def _draw_learning_rate(axes: Axes, steps: Sequence[StepRecord]) -> None:
    _draw_line(axes, Line([record.step for record in steps], [record.lr for record in steps]), colour="tab:blue")
    axes.set_ylabel("learning rate")
    axes.set_ylim(bottom=0)


def _draw_gradient_norm(axes: Axes, steps: Sequence[StepRecord]) -> None:
    good = [(record.step, record.grad_norm) for record in steps if record.grad_norm is not None]
    _draw_line(axes, Line([step for step, _ in good], [norm for _, norm in good]), colour="tab:blue", width=0.8)
    axes.set_ylabel("gradient norm before clipping")
    axes.set_ylim(bottom=0)


def _draw_memory(axes: Axes, steps: Sequence[StepRecord]) -> None:
    numbers = [record.step for record in steps]
    for label, colour, values in (
        ("peak", "tab:orange", [record.memory_peak / GIB for record in steps]),
        ("after the step", "tab:blue", [record.memory / GIB for record in steps]),
    ):
        _draw_line(axes, Line(numbers, values), colour=colour, label=label)
    axes.set_ylabel("memory in GiB")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)


def _save(curve: TrainingCurve, stem: Path) -> list[Path]:
    figure = draw_figure(curve, (8, 4.5))
    paths = [stem.with_suffix(suffix) for suffix in FORMATS]
    for path in paths:
        save_figure(figure, path)
    return paths
