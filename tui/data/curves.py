"""What the curves of a training are, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from numpy.typing import NDArray

Axis = Literal["step", "time", "epoch"]
"""`time` is seconds of training: pauses and jumps of the clock do not count."""

BINS = 10
"""Equal parts of sigma from 0 to 1 in `loss_by_sigma`."""


@dataclass(frozen=True)
class SeriesInfo:
    """What a curve shows."""

    name: str
    title: str
    unit: str
    log: bool = False
    """Whether a logarithmic axis makes sense."""


SERIES: dict[str, SeriesInfo] = {
    info.name: info
    for info in (
        SeriesInfo("loss", "Loss", "", log=True),
        SeriesInfo("loss_smooth", "Loss, smoothed", "", log=True),
        SeriesInfo("validation_loss", "Validation loss", "", log=True),
        SeriesInfo("lr", "Learning rate", "", log=True),
        SeriesInfo("grad_norm", "Gradient norm", "", log=True),
        SeriesInfo("samples_per_s", "Samples a second", "1/s"),
        SeriesInfo("tokens_per_s", "Latent tokens a second", "1/s"),
        SeriesInfo("data_wait_s", "Waiting for data", "s"),
        SeriesInfo("data_wait_share", "Waiting for data, part of the step", ""),
        SeriesInfo("step_s", "Time of a step", "s"),
        SeriesInfo("memory", "Memory after the step", "B"),
        SeriesInfo("memory_peak", "Memory peak", "B"),
        *(
            SeriesInfo(f"sigma_{n}", f"Loss, sigma {n / BINS:g} to {(n + 1) / BINS:g}", "", log=True)
            for n in range(BINS)
        ),
    )
}
PLAIN = ("loss", "lr", "grad_norm", "samples_per_s", "tokens_per_s", "data_wait_s", "step_s", "memory", "memory_peak")


@dataclass(frozen=True)
class Series:
    """A curve, thinned; x ascends, y is finite."""

    name: str
    label: str
    x: NDArray[Any]
    y: NDArray[Any]
    points: int
    """Before thinning."""


@dataclass(frozen=True)
class Mark:
    """A line that is not a step's: the beginning of a training, a checkpoint, a preview, a warning."""

    kind: str
    step: int
    time: float
    fields: dict[str, Any] = field(hash=False)
    offset: int = 0


@dataclass(frozen=True)
class Progress:
    """How far a training is."""

    step: int
    total: int
    epoch: float
    step_s: float | None
    """Median over the last steps."""
    eta_s: float | None
    silent_s: float | None
    """Seconds since the file was last seen to grow."""
    stalled: bool
    loss: float | None
    loss_smooth: float | None
    lr: float | None
    former: bool = False
    """Whether these are the last numbers of an earlier run, and the one that is alive has none yet."""
