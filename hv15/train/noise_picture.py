"""A picture of the noise levels of a training, by matplotlib."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from hv15.config.train import TrainSettings
from hv15.figures import save_figure
from hv15.noise.levels import TIMESTEPS
from hv15.train.noise_shares import noise_bins, weight_shares

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 50
LINE = 110
"""Characters of a line of the title."""
SAMPLES, WEIGHTED = "tab:blue", "tab:orange"


def draw_noise(options: TrainSettings, title: str, path: Path) -> None:
    """Draw how often each noise level is trained and, if samples are weighted, how much it counts.

    Args:
        path: a PNG or an SVG, by the end of its name. Equal settings give equal files.

    Raises:
        UserError: it is neither, or it cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    unbroken = title.replace(" ", "\u00a0").replace(",\u00a0", ", ")  # lines end after a comma
    figure.suptitle(fill(unbroken, LINE), fontsize="medium")
    _draw(figure, options)
    save_figure(figure, path)


def _draw(figure: Figure, options: TrainSettings) -> None:
    bins = noise_bins(options, BINS)
    panel = figure.subplots()
    edges = [TIMESTEPS * each.low for each in bins] + [TIMESTEPS]
    panel.stairs(
        [100 * each.share for each in bins], edges, fill=True, color=SAMPLES, alpha=0.6, label="of the samples"
    )
    if options.weighting_scheme != "none":
        shares = [100 * share for share in weight_shares(bins)]
        panel.stairs(shares, edges, color=WEIGHTED, linewidth=2, baseline=None, label="of the weight in the loss")
        panel.legend(frameon=False)
    _label(panel)


def _label(panel: Axes) -> None:
    panel.set_xlim(0, TIMESTEPS)
    panel.set_ylim(bottom=0)
    panel.set_xlabel("timestep (0: the clip, 1000: noise)")
    panel.set_ylabel(f"% in each {TIMESTEPS / BINS:g} timesteps")
    panel.spines[["top", "right"]].set_visible(False)
