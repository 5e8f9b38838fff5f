"""The settings of `train:` for the distribution of noise levels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from hv15.config.section import Conflict, Section

TimestepSampling = Literal["shift", "sigmoid", "uniform", "logit_normal"]
Timestep = Annotated[float, Field(ge=0.0, le=1000.0)]


class TimestepSettings(Section):
    """The distribution of noise levels (sigma) in training."""

    timestep_sampling: TimestepSampling = "shift"
    """Distribution of noise levels (sigma). `shift`: a sigmoid of a normal variable, shifted by `discrete_flow_shift`.
    `sigmoid`: the same without the shift. `uniform`: all levels equally. `logit_normal`: a sigmoid of a normal variable
    with `logit_mean` and `logit_std`, then shifted, as in the official training."""

    discrete_flow_shift: PositiveFloat = 3.0
    """Moves sampled sigmas towards noise: s*t / (1 + (s-1)*t). Official training uses 3, sampling 5 to 9 (by
    checkpoint). Higher values train more on layout and motion, lower values more on detail."""

    sigmoid_scale: PositiveFloat = 1.0
    """Spread of `shift` and `sigmoid`: above 1 for more extreme noise levels, below 1 for more medium ones."""

    logit_mean: float = 0.0
    """Centre of `logit_normal`; positive values are towards noise."""

    logit_std: PositiveFloat = 1.0
    """Spread of `logit_normal`."""

    min_timestep: Timestep = 0.0
    """Lowest timestep that is trained (0 = no noise). Increase it to leave fine detail unchanged."""

    max_timestep: Timestep = 1000.0
    """Highest timestep that is trained (1000 = pure noise). Lower it to leave the layout unchanged."""

    def conflicts(self) -> Iterator[Conflict]:
        yield from super().conflicts()
        if self.min_timestep >= self.max_timestep:
            text = f"found {self.min_timestep:g}, expected less than max_timestep ({self.max_timestep:g})"
            yield ("min_timestep",), text
