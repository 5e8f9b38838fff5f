"""`hv15 timesteps`: which noise levels a training draws, and how much each counts."""

from __future__ import annotations

import json

from hv15.commands.options.project import Timesteps
from hv15.config import TrainSettings, digest_view, load_config
from hv15.config.training.timesteps import TimestepSettings
from hv15.noise.levels import TIMESTEPS
from hv15.records.json_values import Json

BINS = 20
WIDTH = 40
"""Characters of the longest bar."""


def timesteps(options: Timesteps) -> None:
    """Print the distribution of a project's timesteps, and draw it into a file if one is asked for.

    Raises:
        UserError: the config cannot be used, or the picture cannot be drawn.
    """
    train = load_config(options.config, options.overrides, experiment=options.experiment).train
    if options.out is not None:
        from hv15.train.noise_picture import draw_noise

        draw_noise(train, _settings(train), options.out)
    print("\n".join([_settings(train), "", *_table(train), "", *_notes(train)]))
    if options.out is not None:
        print(f"drawn into {options.out}")


def _settings(train: TrainSettings) -> str:
    """The settings that have an effect, as in a config, without those that change nothing."""
    names = [*TimestepSettings.model_fields, "weighting_scheme", "min_snr_gamma"]
    nothing = ("min_timestep 0", f"max_timestep {TIMESTEPS:g}", "weighting_scheme none", "num_timestep_buckets null")
    found = [f"{name} {_written(value)}" for name, value in digest_view(train).items() if name in names]
    return ", ".join(each for each in found if each not in (*nothing, "preserve_distribution_shape false"))


def _written(value: Json) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value) if isinstance(value, str) else json.dumps(value)


def _table(train: TrainSettings) -> list[str]:
    from hv15.train.noise_shares import noise_bins, weight_shares

    bins = noise_bins(train, BINS)
    weighted = train.weighting_scheme != "none"
    most = max(each.share for each in bins)
    lines = [f"timesteps    samples  {'':{WIDTH}}     weight  of all weight" if weighted else "timesteps    samples"]
    for each, share in zip(bins, weight_shares(bins), strict=True):
        line = f"{TIMESTEPS * each.low:4.0f} - {TIMESTEPS * each.high:4.0f}  {100 * each.share:5.1f} %"
        line += f"  {'#' * round(WIDTH * each.share / most):{WIDTH}}"
        lines.append(f"{line}  {each.weight:9.4g}  {100 * share:11.1f} %" if weighted else line.rstrip())
    return lines


def _notes(train: TrainSettings) -> list[str]:
    low, middle, high = (TIMESTEPS * train.distribution().quantile(part) for part in (0.1, 0.5, 0.9))
    notes = [f"10 % of the samples are below {low:.0f}, half below {middle:.0f}, 10 % above {high:.0f}"]
    if count := train.num_timestep_buckets:
        notes.append(f"of {count} samples in a row, one is from each of {count} equally probable parts")
    return notes
