"""summary.json: the results of a whole training."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from hv15.atomic import write_json
from hv15.records.fields import from_json
from hv15.records.json_values import RecordError, parse_object


@dataclass(frozen=True)
class TrainingSummary:
    """The only result of a training that contains times, so that all others are equal for equal trainings."""

    steps: int
    skipped_steps: int
    """How many of the steps changed nothing, because their numbers were not finite."""
    epochs: float
    loss_first: float
    """Mean over the first tenth of the steps; if all clips were regularisation, of the difference to the prediction
    without the LoRA."""
    loss_last: float
    """Mean over the last tenth of the steps."""
    train_seconds: float
    data_wait_seconds: float
    memory_peak: float
    """Bytes."""
    finished: float
    """Seconds since 1970."""
    device: str
    versions: dict[str, str]

    def write(self, path: Path) -> None:
        """Write it atomically.

        Raises:
            UserError: the disk is full, or the folder cannot be written.
        """
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> TrainingSummary:
        """Read it.

        Raises:
            RecordError: it is missing or damaged.
        """
        try:
            return from_json(cls, parse_object(path.read_bytes()))
        except OSError as error:
            raise RecordError(f"cannot be read: {error.strerror or error}") from error
