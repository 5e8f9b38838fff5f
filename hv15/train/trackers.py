"""Passes the records of a training on to TensorBoard and Weights & Biases, through accelerate's trackers.

A tracker that fails is left out from then on, with a warning: it is never a reason for a training to fail.
"""

from __future__ import annotations

import logging
import math
import netrc
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.config.training.tracking import Tracker
from hv15.records.json_values import Json
from hv15.records.metrics import MetricsRecord, PreviewRecord, StartRecord, measures
from hv15.records.paths import ProjectPaths

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

log = logging.getLogger(__name__)

MOST_FRAMES = 4
"""Frames that are shown of a preview."""
_LOGIN_HOST = "api.wandb.ai"


@dataclass
class Trackers:
    """The trackers of one training; it is called with each record, on the first process."""

    names: tuple[Tracker, ...]
    project: str
    folder: Path
    """Of the training."""
    config: Mapping[str, str | float | bool | None]
    """The settings, by their paths."""
    _started: dict[Tracker, GeneralTracker] = field(default_factory=dict, init=False)

    def __call__(self, record: MetricsRecord) -> None:
        """Pass a record on; the start of the training starts the trackers."""
        if isinstance(record, StartRecord):
            for name in self.names:
                self._try(name, partial(self._start, name, record))
        values = dict(measured(record))
        for name, tracker in list(self._started.items()):
            if values:
                self._try(name, partial(tracker.log, values, step=record.step))
            if isinstance(record, PreviewRecord):
                self._try(name, partial(self._show, tracker, record))

    def close(self) -> None:
        """Let the trackers write what they hold."""
        for name, tracker in list(self._started.items()):
            self._try(name, tracker.finish)
        self._started.clear()

    def _start(self, name: Tracker, record: StartRecord) -> None:
        from accelerate.tracking import TensorBoardTracker, WandBTracker

        if name == "tensorboard":
            folder = self.folder / ProjectPaths().tensorboard.name
            # Steps after the saved one are run again.
            tracker: GeneralTracker = TensorBoardTracker("", folder, purge_step=record.step + 1)
        else:
            mode = {} if is_logged_in() else {"mode": "offline"}
            identity = record.spec[:16]
            tracker = WandBTracker(self.project, dir=str(self.folder), id=identity, resume="allow", **mode)
        tracker.start()
        tracker.store_init_configuration(dict(self.config))
        self._started[name] = tracker

    def _show(self, tracker: GeneralTracker, record: PreviewRecord) -> None:
        from hv15.sample.contact_sheet import read_sample

        frames = read_sample(self.folder / record.path)  # uint8 [F, H, W, 3]
        places = [round(part * (len(frames) - 1) / max(MOST_FRAMES - 1, 1)) for part in range(MOST_FRAMES)]
        layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
        tracker.log_images({f"preview {record.name}": frames[sorted(set(places))]}, step=record.step, **layout)

    def _try(self, name: Tracker, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # whatever another program may raise
            self._started.pop(name, None)
            missing = isinstance(error, ImportError)
            cure = "pip install 'hv15[trackers]'" if missing else "the training continues without it"
            log.warning("train.trackers: %s: %s (%s)", name, error, cure)


def measured(record: MetricsRecord) -> Iterator[tuple[str, float]]:
    """Yield the measured numbers of a record; those of bins have their number after a slash."""
    for name, measure in measures(type(record)).items():
        value = getattr(record, name)
        numbers = {f"{name}/{index}": each for index, each in enumerate(value)} if measure.bins else {name: value}
        yield from ((key, float(each)) for key, each in numbers.items() if each is not None and math.isfinite(each))


def flat(settings: Mapping[str, Json], prefix: str = "") -> dict[str, str | float | bool | None]:
    """Return settings by their paths, such as train.seed; lists as text."""
    found: dict[str, str | float | bool | None] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = str(value) if isinstance(value, list) else value
    return found


def is_logged_in() -> bool:
    """Whether W&B knows an account here, or its mode is set by its own variable."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_MODE"):
        return True
    try:
        return _LOGIN_HOST in netrc.netrc().hosts
    except (OSError, netrc.NetrcParseError):
        return False
