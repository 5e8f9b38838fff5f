"""The training state on disk: `<output folder>/train/`, which belongs to one training at a time (`hv15.train.folder`).

- run.json: which training that is (`hv15.records.training`)
- origin/: what it started from, if that is another training (`hv15.train.origin`)
- metrics.jsonl: see hv15.train.metrics
- checkpoints/: see hv15.train.checkpoints
- previews/: see hv15.train.previews
- state/step-000123/: lora.safetensors, optimizer.pt, state.json with digests of the others and of itself;
  complete or absent; the last two are kept
- summary.json: written at the end; the only file with times
- dataset.json: the clips and captions by name, written at the end (hv15.records.trained_dataset)
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from typing import TextIO

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hv15.digest import digest, file_sha256
from hv15.errors import UserError
from hv15.own_files import cure, open_own
from hv15.records.fields import from_json
from hv15.records.json_values import as_object
from hv15.records.training import ITSELF, STATE, STATES_KEPT, state_content, state_folders, state_name
from hv15.train.optimizer_state import OptimizerState
from hv15.train.origin import LORA
from hv15.train.stopping import Standing

log = logging.getLogger(__name__)

LOOKED_AT_S, LOOKS = 0.02, 25
"""How long to wait for a process that only looks whether the lock is free, and how often."""


@dataclass(frozen=True)
class Position:
    """The progress of a training. Everything else that it needs follows from the number of finished steps."""

    step: int
    """Number of finished optimizer steps."""
    epoch: float
    metrics_offset: int
    """Bytes of metrics.jsonl that belong to the finished steps."""
    spec: str
    """Digest of the past of the training's spec (`hv15.train.past`)."""
    batches_per_step: int
    """Number of micro-batches in a step on all processes; with another number, steps would have other samples."""
    between_due: bool = False
    """Whether this was saved before what was due after these steps, such as a checkpoint: it is done on resuming."""
    samples: int = 0
    """The number of samples in the finished steps."""
    skipped_steps: int = 0
    """How many of the steps changed nothing, because their numbers were not finite."""
    bad_in_a_row: int = 0
    """How many such steps there were since the last good one."""
    standing: Standing | None = None
    """Of the validations after these steps."""
    averaged_steps: int = 0
    """How many of the steps are in the moving average of the LoRA, if there is one."""


@dataclass(frozen=True)
class SavedState:
    """A state that was read from disk."""

    position: Position
    lora: dict[str, Tensor]
    optimizer: OptimizerState
    """Empty if the optimizer begins anew."""
    average: dict[str, Tensor] | None = None
    """The moving average of the LoRA's parameters; None if there is none."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock `<folder>.lock`, so that two trainings never write to the same folder; the lock ends with the process.

    Raises:
        UserError: another training holds the lock, or the file cannot be written.
    """
    lock_file = folder.with_name(f"{folder.name}.lock")
    try:
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(open_own(lock_file, os.O_WRONLY | os.O_APPEND), "a")
    except OSError as error:
        raise UserError.at(
            lock_file,
            f"cannot be written: {error.strerror}",
            hint=cure(error, "choose another output folder, or free some disk space"),
        ) from error
    with file:
        if not any(map(_takes, repeat(file, LOOKS))):
            raise UserError.at(
                folder,
                "another training is running here",
                hint="wait for it or stop it, or use another output folder for this one",
            )
        yield


def _takes(file: TextIO) -> bool:
    """Lock the file. If another process has locked it, wait a moment, and return False."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(LOOKED_AT_S)
        return False
    return True


class StateFolder:
    """Saves and restores the states of one training."""

    def __init__(self, folder: Path, spec: str) -> None:
        self.folder = folder
        self.spec = spec

    def save(
        self,
        position: Position,
        lora: dict[str, Tensor],
        optimizer: Mapping[str, object],
        average: dict[str, Tensor] | None = None,
    ) -> Path:
        """Write a state, flush it to the disk, then rename it to its final name; old states are removed last.

        Raises:
            UserError: the disk is full. Earlier states are not changed.
        """
        target = self.folder / state_name(position.step)
        temporary = self.folder / f".{target.name}.tmp"
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            for name, tensors in ((LORA, lora), (AVERAGE, average or {})):
                if tensors:
                    whole = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
                    save_file(whole, temporary / name)
            with (temporary / OPTIMIZER).open("wb") as file:  # with a path, torch would not say why it failed
                torch.save(optimizer, file)
            names = [name for name in FILES if (temporary / name).exists()]
            content = asdict(position) | {"sha256": {name: file_sha256(temporary / name) for name in names}}
            content |= {ITSELF: digest(content)}
            (temporary / STATE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            for path in (*temporary.iterdir(), temporary):
                _flush(path)
            shutil.rmtree(target, ignore_errors=True)  # the same step of the same spec has the same content
            temporary.rename(target)
            _flush(self.folder)
        except Exception as error:  # torch and safetensors raise their own classes when the disk is full
            shutil.rmtree(temporary, ignore_errors=True)
            raise UserError.at(
                target,
                f"the training state cannot be written: {_reason(error)}",
                hint="free some disk space and run the same command again: it resumes from the last saved state",
            ) from error
        for old in state_folders(self.folder)[STATES_KEPT:]:
            shutil.rmtree(old, ignore_errors=True)
        return target

    def load_latest(self) -> SavedState | None:
        """Return the newest undamaged state, None if there is none; damaged ones are skipped with a warning."""
        for folder in state_folders(self.folder):
            try:
                saved = load_state(folder)
                if saved.position.spec != self.spec:
                    raise ValueError("of another configuration")
                return saved
            except Exception as error:
                log.warning("%s: cannot be used, skipped: %s", folder, error)
        return None


def load_state(folder: Path) -> SavedState:
    """Read a state of any training.

    Raises:
        Exception: it is damaged; torch and safetensors raise their own classes.
    """
    content = state_content(folder)
    sums = as_object(content.pop("sha256"))
    position = from_json(Position, content)
    for name in {LORA, OPTIMIZER} | (sums.keys() & {AVERAGE}):
        if file_sha256(folder / name) != sums[name]:
            raise ValueError(f"{name} is damaged")
    optimizer = torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True)
    average = load_file(folder / AVERAGE) if AVERAGE in sums else None
    return SavedState(position, load_file(folder / LORA), optimizer, average)


OPTIMIZER, AVERAGE = "optimizer.pt", "average.safetensors"
FILES = (LORA, OPTIMIZER, AVERAGE)
"""All that a state may have besides `STATE`."""


def _reason(error: BaseException) -> str:
    """Return the system's reason for an error of torch, which names only a position in the file."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return cause.strerror or str(cause)
        cause = cause.__cause__ or cause.__context__
    return str(error)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
