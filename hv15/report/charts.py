"""The curves of a training as figures of a page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.pages.vector import SERIES, inline_svg
from hv15.records.metrics import QUANTILE_COUNT, SIGMA_BINS
from hv15.train.curves import TrainingCurve, curves_of, draw_figure, level_colours

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE = (6.2, 3.5)
"""Width and height of a chart in inches."""
_LEVELS = {"loss_by_sigma": ("--bin", SIGMA_BINS), "validation_by_sigma": ("--quantile", QUANTILE_COUNT)}
"""The charts with a line for each noise level: what the page's variables for their colours begin with, and how many."""
_DARK = 0.28
"""Where the colours of noise levels begin on dark paper, as a part of all."""
_CAPTIONS = {
    "loss": "Running mean of the loss over the steps; with validation, on clips that were not trained on, and on as "
    "many that were.",
    "validation_by_sigma": "Loss on clips that were not trained on, at the quantiles 0.1 to 0.9 of the noise levels of "
    "the training, always with the same noise. Dotted: on trained clips.",
    "loss_by_sigma": "Running mean of the loss of each tenth of sigma, where 1 is only noise.",
    "learning_rate": "Learning rate of each step.",
    "gradient_norm": "Norm of the gradients of each step, before they are clipped.",
    "memory": "Memory of the training: of the GPU, or else of the process.",
}


@dataclass(frozen=True)
class ChartFigure:
    """One chart on a page."""

    title: str
    caption: str
    svg: str


def chart_figures(metrics: Path) -> list[ChartFigure]:
    """Return the charts of what a metrics file has; none if there is no file, or no step in it."""
    try:
        curves = curves_of(metrics)
    except OSError:
        return []
    return [
        ChartFigure(
            curve.title,
            _CAPTIONS[name],
            inline_svg(_drawing(curve), name.replace("_", "-"), curve.title, {**SERIES, **_level_names(name)}),
        )
        for name, curve in curves.items()
    ]


def level_styles() -> dict[str, str]:
    """Return the page's variables for the colours of noise levels, on light and on dark paper."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    light, dark = list[str](), list[str]()
    for variable, count in _LEVELS.values():
        for number in range(count):
            share = number / (count - 1)
            light.append(f"{variable}-{number}: {to_hex(colormaps['viridis'](0.9 * share))};")
            dark.append(f"{variable}-{number}: {to_hex(colormaps['viridis'](_DARK + (1 - _DARK) * share))};")
    return {"light": " ".join(light), "dark": " ".join(dark)}


def _drawing(curve: TrainingCurve) -> Callable[[], Figure]:
    return lambda: draw_figure(curve, SIZE)


def _level_names(name: str) -> dict[str, str]:
    if name not in _LEVELS:
        return {}
    variable, count = _LEVELS[name]
    return {colour: f"{variable}-{number}" for number, colour in enumerate(level_colours(count))}
