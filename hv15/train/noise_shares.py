"""What a training's noise levels are, in equal bins of sigma: how many samples fall into each, and their weights."""

from __future__ import annotations

from dataclasses import dataclass

from hv15.config.train import TrainSettings
from hv15.train.weighting import LossWeight

_PLACES = 16
"""Quantiles of a bin over which its weight is averaged."""


@dataclass(frozen=True)
class NoiseBin:
    """The samples with a sigma from `low` to below `high`; in the last bin, to 1."""

    low: float
    high: float
    share: float
    """Of all samples."""
    weight: float
    """Mean of their weights in the loss; 0 where there are none."""


def noise_bins(options: TrainSettings, count: int) -> list[NoiseBin]:
    """Return equal bins of sigma, from 0 to 1."""
    distribution, weight = options.distribution(), LossWeight.from_settings(options)
    edges = [number / count for number in range(count + 1)]
    before = [*(distribution.below(edge) for edge in edges[:-1]), 1.0]
    found = []
    for low, high, start, end in zip(edges, edges[1:], before, before[1:], strict=False):
        places = [start + (end - start) * (place + 0.5) / _PLACES for place in range(_PLACES)]
        weights = [weight(distribution.quantile(place)) for place in places] if end > start else [0.0]
        found.append(NoiseBin(low, high, end - start, sum(weights) / len(weights)))
    return found


def weight_shares(bins: list[NoiseBin]) -> list[float]:
    """Return each bin's share of the weights of all samples."""
    total = sum(each.share * each.weight for each in bins)
    return [each.share * each.weight / total for each in bins]
