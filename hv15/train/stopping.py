"""The lowest loss of a training's validations, and when the training ends because it does not fall any more."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Standing:
    """What the validations so far have come to; it is part of a training's state."""

    best_loss: float | None = None
    """The lowest; None before the first that is finite."""
    best_step: int = 0
    """The number of finished steps at that validation, the first with this loss."""
    since_best: int = 0
    """Number of validations after it."""

    def after(self, step: int, loss: float | None) -> Standing:
        """Return the standing after another validation; a loss that is not finite is None, and never the lowest."""
        if loss is not None and (self.best_loss is None or loss < self.best_loss):
            return Standing(loss, step, 0)
        return Standing(self.best_loss, self.best_step, self.since_best + 1)


@dataclass
class Stopping:
    """Ends a training after `patience` validations without a lower loss; never if that is None."""

    patience: int | None = None
    standing: Standing = field(default_factory=Standing)

    @property
    def is_due(self) -> bool:
        return self.patience is not None and self.standing.since_best >= self.patience
