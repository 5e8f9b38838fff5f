"""The settings of `train:` for what a training starts from."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from hv15.config.section import ORIGIN, Conflict, PathText, Section

LATEST = "latest"
"""The value of `continue_from` for the newest state of the project's training."""


class StartSettings(Section):
    """What the training starts from."""

    continue_from: PathText | None = Field(None, json_schema_extra=ORIGIN)
    """Start from another training instead of a new LoRA, to continue with other settings. `latest`: from the newest
    state of results/train, the one at the time of planning. Or the folder of a state, such as
    results/train-ab12cd34/state/step-001600, or its digest as `hv15 show` prints it. A state brings weights, optimizer
    state and counts: steps count on, so `max_train_steps` is the total, and the order of the clips continues after the
    samples that were used. Or a checkpoint or LoRA file, which brings only weights: steps count from 0. What it starts
    from is kept in results/train/origin."""

    reset_optimizer: bool = Field(False, json_schema_extra=ORIGIN)
    """Do not take the optimizer's state from the state in `continue_from`. Needed with another optimizer."""

    def conflicts(self) -> Iterator[Conflict]:
        yield from super().conflicts()
        if self.reset_optimizer and self.continue_from is None:
            yield ("reset_optimizer",), "has no effect without continue_from"
