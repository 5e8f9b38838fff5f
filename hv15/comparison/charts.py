"""Curves of trainings over one another, by matplotlib: a line for each group, and a band for the spread of its seeds.

They are drawn into files for papers, and on the page, whose colours of groups suit light and dark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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

MOST_LINES = 12
"""Groups of a chart: those with the lowest validation losses, or the first ones."""
_POINTS = 300
_LOG_FROM = 5.0
"""An axis is logarithmic if its largest value is more than so many times the smallest."""


SIZE = (7.0, 4.0)
"""Width and height of a chart in inches."""
NAMES = ("setting", "validation", "noise", "loss")
_DARK = 0.28
"""Where the colours of ordered groups begin on dark paper, as a part of all."""


@dataclass(frozen=True)
class ComparisonChart:
    """One chart, and what it shows in words."""

    name: str
    title: str
    caption: str
    draw: Callable[[Axes], object]

    def figure(self) -> Figure:
        """Draw it."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        self.draw(axes)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:  # beside the chart, so that it hides no line
            figure.legend(loc="outside right upper", frameon=False, fontsize="small")
        return figure


class Band(NamedTuple):
    """A curve with its spread."""

    x: Sequence[float]
    mean: Sequence[float]
    deviation: Sequence[float] | None
    """The standard deviation over the seeds; None of a single training."""


def make_charts(comparison: TrainingComparison) -> list[ComparisonChart]:
    """Return the charts of which there is something to show."""
    groups = shown_groups(comparison)
    losses, validations = _bands(groups, loss_band), _bands(groups, validation_band)
    seeds = "; bands: standard deviation over seeds" if comparison.has_repetitions else ""
    charts = list[ComparisonChart]()
    if (varied := comparison.varied) is not None and comparison.compares_groups:
        name, caption = short_name(varied), "Each training, and mean and standard deviation over its seeds"
        title = f"Lowest validation loss by {name}"
        charts.append(ComparisonChart("setting", title, caption, lambda axes: _draw_setting(axes, comparison, varied)))
    if validations:
        caption = f"Loss on clips that were not trained on{seeds}"
        draw = _drawing(groups, validations, "o-")
        charts.append(ComparisonChart("validation", "Validation", caption, draw))
    levels = _levels(groups) if comparison.is_comparable else None
    if levels is not None:
        caption = "The last validation at each level, relative to the mean of all groups: below 0 is better there"
        draw = _drawing_of_levels(groups, levels)
        charts.append(ComparisonChart("noise", "Validation by noise level", caption, draw))
    if losses:
        caption = (
            f"Running mean ({SMOOTHING:g}) of the loss on trained clips{seeds}. It depends on which noise levels are "
            "trained, so it tells less than the validation"
        )
        charts.append(ComparisonChart("loss", "Loss", caption, _drawing(groups, losses, "-")))
    return charts


def write_charts(charts: Iterable[ComparisonChart], folder: Path) -> list[Path]:
    """Write charts as files for papers, and return the files.

    Raises:
        UserError: one cannot be written.
    """
    written = []
    for chart in charts:
        figure = chart.figure()
        for suffix in PAPER_FORMATS:
            path = (folder / chart.name).with_suffix(suffix)
            save_figure(figure, path)
            written.append(path)
    return written


def shown_groups(comparison: TrainingComparison) -> list[TrainingGroup]:
    """Return the groups that have lines of their own, in their order."""
    if len(comparison.groups) <= MOST_LINES:
        return [*comparison.groups]
    best = sorted(comparison.groups, key=lambda each: each.validation.mean if each.validation else float("inf"))
    return [group for group in comparison.groups if group in best[:MOST_LINES]]


def validation_band(group: TrainingGroup) -> Band | None:
    """Return the validation losses at the steps at which all drawn trainings of a group were measured; None without
    any."""
    found = [{each.step: each.loss for each in training.validations} for training in group.drawn]
    found = [each for each in found if each]
    steps = sorted(set.intersection(*map(set, found))) if found else []
    spreads = [spread(each[step] for each in found) for step in steps]
    return _band(steps, [[each.mean, each.deviation] for each in spreads if each is not None])


def loss_band(group: TrainingGroup) -> Band | None:
    """Return the running means of the losses as far as all drawn trainings of a group have come; None without any."""
    import numpy as np

    lines = [training.loss for training in group.drawn if len(training.loss.steps)]
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


def chart_colours(comparison: TrainingComparison) -> dict[str, str]:
    """Return the page's variable for the colour of each group, by that colour."""
    return {colour: f"--group-{number}" for number, colour in enumerate(_colours(shown_groups(comparison)))}


def colour_styles(comparison: TrainingComparison) -> dict[str, str]:
    """Return the page's variables for the colours of groups, on light and on dark paper."""
    groups = shown_groups(comparison)
    colours = {"light": _colours(groups), "dark": _colours(groups, begin=_DARK, end=1.0)}
    return {
        paper: " ".join(f"--group-{number}: {colour};" for number, colour in enumerate(each))
        for paper, each in colours.items()
    }


def _colours(groups: Sequence[TrainingGroup], *, begin: float = 0.0, end: float = 0.92) -> list[str]:
    """Colours, as #rrggbb, along a scale for groups that differ in one number; others are told apart by hue.

    Args:
        begin, end: the part of the scale.
    """
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    count = len(groups)
    values = [value for group in groups for value in group.settings.values()]
    is_ordered = count > 2 and len(values) == count and all(_is_number(value) for value in values)
    if not is_ordered:
        hues = colormaps["tab10" if count <= 10 else "tab20"]
        return [to_hex(hues(number)) for number in range(count)]
    ranks = {value: rank for rank, value in enumerate(sorted(values, key=lambda value: float(str(value))))}
    return [to_hex(colormaps["viridis"](begin + (end - begin) * ranks[value] / (count - 1))) for value in values]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _bands(groups: Sequence[TrainingGroup], band: Callable[[TrainingGroup], Band | None]) -> dict[TrainingGroup, Band]:
    """The bands that there are."""
    return {group: found for group in groups if (found := band(group)) is not None}


def _drawing(
    groups: Sequence[TrainingGroup], bands: Mapping[TrainingGroup, Band], style: str
) -> Callable[[Axes], None]:
    """What draws bands."""

    def draw(axes: Axes) -> None:
        for group, colour in zip(groups, _colours(groups), strict=True):
            band = bands.get(group)
            if band is None:
                continue
            drawn_as = style if len(band.x) > 1 else "o"  # nothing would be seen of a line
            axes.plot(band.x, band.mean, drawn_as, color=colour, markersize=4, label=group.label)
            if band.deviation is not None:
                low = [mean - deviation for mean, deviation in zip(band.mean, band.deviation, strict=True)]
                high = [mean + deviation for mean, deviation in zip(band.mean, band.deviation, strict=True)]
                axes.fill_between(band.x, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
        values = [value for band in bands.values() for value in band.mean]
        if min(values) > 0 and max(values) > _LOG_FROM * min(values):
            axes.set_yscale("log")

    return draw


def _levels(groups: Sequence[TrainingGroup]) -> dict[TrainingGroup, Band] | None:
    """Each group's last validation by noise level, as a deviation from the mean of all groups in percent."""
    means: dict[TrainingGroup, list[float | None]] = {}
    sigmas: Sequence[float] = ()
    for group in groups:
        last = [each.last for each in group.counted if each.last is not None and each.last.loss_by_quantile]
        if last:
            sigmas = last[0].sigmas
            levels = zip(*(each.loss_by_quantile for each in last), strict=False)
            means[group] = [found.mean if (found := spread(level)) else None for level in levels]
    if len(means) < 2:
        return None
    every = [spread(level) for level in zip(*means.values(), strict=False)]
    bands = dict[TrainingGroup, Band]()
    for group, values in means.items():
        points = [
            (sigma, 100 * (value / whole.mean - 1))
            for sigma, value, whole in zip(sigmas, values, every, strict=False)
            if value is not None and whole is not None and whole.mean
        ]
        if points:
            bands[group] = Band([sigma for sigma, _ in points], [percent for _, percent in points], None)
    return bands or None


def _drawing_of_levels(groups: Sequence[TrainingGroup], levels: Mapping[TrainingGroup, Band]) -> Callable[[Axes], None]:
    """What draws the deviations by noise level."""

    def draw(axes: Axes) -> None:
        for group, colour in zip(groups, _colours(groups), strict=True):
            if group in levels:
                axes.plot(*levels[group][:2], "o-", color=colour, markersize=4, label=group.label)
        axes.axhline(0, color="0.6", linewidth=0.8, zorder=0)
        axes.set_xlabel("noise level (sigma)")
        axes.set_ylabel("validation loss, % from the mean")

    return draw


def _draw_setting(axes: Axes, comparison: TrainingComparison, name: str) -> None:
    """Draw the lowest validation loss over the one setting that was varied."""
    points: list[tuple[float, TrainingGroup]] = []
    for group in comparison.groups:
        value = group.settings[name]
        if isinstance(value, int | float) and group.validation is not None:
            points.append((float(value), group))
    points.sort(key=lambda each: each[0])
    for value, group in points:
        losses = [each.best.loss for each in group.counted if each.best is not None and each.best.loss is not None]
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
