"""Curves of trainings over one another, by matplotlib: a line for each group, and a band for the spread of its seeds.

Equal measurements give equal files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hv15.comparison.groups import TrainingComparison, TrainingGroup, spread
from hv15.comparison.settings import short_name
from hv15.figures import PAPER_FORMATS, save_figure
from hv15.records.metrics import SMOOTHING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Colour = str | tuple[float, float, float, float]

MOST_LINES = 12
"""Groups of a chart: those with the lowest validation losses, or the first ones."""
_POINTS = 300
_LOG_FROM = 5.0
"""An axis is logarithmic if its largest value is more than so many times the smallest."""


@dataclass(frozen=True)
class ComparisonChart:
    """One chart, and what it shows in a sentence."""

    name: str
    caption: str
    files: tuple[Path, ...]
    """The same picture in the formats of `PAPER_FORMATS`."""


class Band(NamedTuple):
    """A curve with its spread."""

    x: Sequence[float]
    mean: Sequence[float]
    deviation: Sequence[float] | None
    """The standard deviation over the seeds; None of a single training."""


def draw_charts(comparison: TrainingComparison, folder: Path) -> list[ComparisonChart]:
    """Draw all charts of which there is something to show, in a folder.

    Raises:
        UserError: a picture cannot be written.
    """
    groups = shown_groups(comparison)
    seeds = "; bands: standard deviation over seeds" if comparison.has_repetitions else ""
    charts: dict[str, tuple[str, Callable[[Axes], bool]]] = {}
    if (varied := comparison.varied) is not None and comparison.is_comparable:
        caption = f"Lowest validation loss by {short_name(varied)}: each training, and mean and standard deviation"
        charts["setting"] = (caption, lambda axes: _draw_setting(axes, comparison, varied))
    charts |= {
        "validation": (
            f"Loss on clips that are not trained on{seeds}",
            lambda axes: _draw_bands(axes, groups, {group: validation_band(group) for group in groups}, "o-"),
        ),
        "noise": (
            "The last validation by noise level, relative to the mean of all groups: below 0 is better there",
            lambda axes: _draw_noise(axes, groups) if comparison.is_comparable else False,
        ),
        "loss": (
            f"Running mean ({SMOOTHING:g}) of the loss on trained clips{seeds}. It depends on which noise levels are "
            "trained, so it tells less than the validation",
            lambda axes: _draw_bands(axes, groups, {group: loss_band(group) for group in groups}, "-"),
        ),
    }
    drawn = []
    for name, (caption, draw) in charts.items():
        files = _save(draw, folder / name)
        if files:
            drawn.append(ComparisonChart(name, caption, tuple(files)))
    return drawn


def shown_groups(comparison: TrainingComparison) -> list[TrainingGroup]:
    """Return the groups that have lines of their own, in their order."""
    if len(comparison.groups) <= MOST_LINES:
        return [*comparison.groups]
    best = sorted(comparison.groups, key=lambda each: each.validation.mean if each.validation else float("inf"))
    return [group for group in comparison.groups if group in best[:MOST_LINES]]


def validation_band(group: TrainingGroup) -> Band | None:
    """Return the validation losses at the steps at which all trainings of a group were measured; None without any."""
    found = [{each.step: each.loss for each in training.validations} for training in group.trainings]
    found = [each for each in found if each]
    steps = sorted(set.intersection(*map(set, found))) if found else []
    spreads = [spread(each[step] for each in found) for step in steps]
    return _band(steps, [[each.mean, each.deviation] for each in spreads if each is not None])


def loss_band(group: TrainingGroup) -> Band | None:
    """Return the running means of the losses as far as all trainings of a group have come; None without any."""
    import numpy as np

    lines = [training.loss for training in group.trainings if len(training.loss.steps)]
    if not lines:
        return None
    start, end = max(line.steps[0] for line in lines), min(line.steps[-1] for line in lines)
    if end < start:
        return None
    at = np.unique(np.rint(np.linspace(start, end, _POINTS)))
    values = np.stack([np.interp(at, line.steps, line.values) for line in lines])  # (trainings, points)
    deviation = values.std(axis=0, ddof=1) if len(lines) > 1 else None
    return Band(at.tolist(), values.mean(axis=0).tolist(), None if deviation is None else deviation.tolist())


def _band(steps: Sequence[float], found: Sequence[Sequence[float | None]]) -> Band | None:
    if not steps:
        return None
    means = [mean for mean, _ in found if mean is not None]
    deviations = [deviation for _, deviation in found if deviation is not None]
    return Band(steps, means, deviations if len(deviations) == len(means) else None)


def _colours(comparison_groups: Sequence[TrainingGroup]) -> list[Colour]:
    """Colours along a scale for groups that are in the order of one number; others are told apart by hue."""
    from matplotlib import colormaps

    count = len(comparison_groups)
    values = [value for group in comparison_groups for value in group.settings.values()]
    is_ordered = count > 2 and len(values) == count and all(_is_number(value) for value in values)
    if not is_ordered:
        return [colormaps["tab10" if count <= 10 else "tab20"](number) for number in range(count)]
    ranks = {value: rank for rank, value in enumerate(sorted(values, key=lambda value: float(str(value))))}
    return [colormaps["viridis"](0.92 * ranks[value] / (count - 1)) for value in values]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _draw_bands(
    axes: Axes, groups: Sequence[TrainingGroup], bands: dict[TrainingGroup, Band | None], style: str
) -> bool:
    """Draw the bands that there are; False if there are none."""
    values: list[float] = []
    for group, colour in zip(groups, _colours(groups), strict=True):
        band = bands[group]
        if band is None:
            continue
        values += band.mean
        axes.plot(band.x, band.mean, style, color=colour, markersize=4, label=group.label)
        if band.deviation is not None:
            low = [mean - deviation for mean, deviation in zip(band.mean, band.deviation, strict=True)]
            high = [mean + deviation for mean, deviation in zip(band.mean, band.deviation, strict=True)]
            axes.fill_between(band.x, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    if values and min(values) > 0 and max(values) > _LOG_FROM * min(values):
        axes.set_yscale("log")
    return bool(values)


def _draw_noise(axes: Axes, groups: Sequence[TrainingGroup]) -> bool:
    """Draw each group's last validation by noise level, as a deviation from the mean of all groups in percent."""
    means: dict[TrainingGroup, list[float | None]] = {}
    sigmas: Sequence[float] = ()
    for group in groups:
        last = [each.last for each in group.trainings if each.last is not None and each.last.loss_by_quantile]
        if last:
            sigmas = last[0].sigmas
            levels = zip(*(each.loss_by_quantile for each in last), strict=False)
            means[group] = [found.mean if (found := spread(level)) else None for level in levels]
    if len(means) < 2:
        return False
    every = [spread(level) for level in zip(*means.values(), strict=False)]
    for group, colour in zip(groups, _colours(groups), strict=True):
        points = [
            (sigma, 100 * (value / whole.mean - 1))
            for sigma, value, whole in zip(sigmas, means.get(group, ()), every, strict=False)
            if value is not None and whole is not None and whole.mean
        ]
        if points:
            axes.plot(*zip(*points, strict=True), "o-", color=colour, markersize=4, label=group.label)
    axes.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    axes.set_xlabel("noise level (sigma)")
    axes.set_ylabel("validation loss, % from the mean")
    return True


def _draw_setting(axes: Axes, comparison: TrainingComparison, name: str) -> bool:
    """Draw the lowest validation loss over the one setting that was varied."""
    points: list[tuple[float, TrainingGroup]] = []
    for group in comparison.groups:
        value = group.settings[name]
        if isinstance(value, int | float) and group.validation is not None:
            points.append((float(value), group))
    if len(points) < 2:
        return False
    points.sort(key=lambda each: each[0])
    for value, group in points:
        losses = [each.best.loss for each in group.trainings if each.best is not None and each.best.loss is not None]
        axes.plot([value] * len(losses), losses, ".", color="0.6")
    at, spreads = [value for value, _ in points], [group.validation for _, group in points]
    means = [each.mean for each in spreads if each is not None]
    deviations = [each.deviation or 0.0 for each in spreads if each is not None]
    axes.errorbar(at, means, yerr=deviations, fmt="o-", color="tab:blue", capsize=3)
    if at[0] > 0 and at[-1] > 10 * at[0]:
        axes.set_xscale("log")
    if len(at) <= 12:
        axes.set_xticks(at, [f"{value:g}" for value in at])
        axes.minorticks_off()
    axes.set_xlabel(short_name(name))
    axes.set_ylabel("lowest validation loss")
    return True


def _save(draw: Callable[[Axes], bool], stem: Path) -> list[Path]:
    """Draw a chart and write it in all formats; nothing if there is nothing to draw."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    if not draw(axes):
        return []
    axes.spines[["top", "right"]].set_visible(False)
    _explain(figure, axes)
    paths = [stem.with_suffix(suffix) for suffix in PAPER_FORMATS]
    for path in paths:
        save_figure(figure, path)
    return paths


def _explain(figure: Figure, axes: Axes) -> None:
    """Add the legend beside the chart, so that it hides no line."""
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside right upper", frameon=False, fontsize="small")
