"""The folder of a training, `results/train`: to which training it belongs, and which others are kept beside it.

A training is known by its past (`hv15.train.past`), so any number of lengths share one training. It continues in its
folder when that is not further than the wanted length. Nothing is deleted: the folder of another training, or one that
is further, is moved aside to `train-<digest of its past>`, followed by `-2`, `-3`, ... if that exists, and moved back
when it is wanted again.

An interruption at any moment loses nothing, and the next call continues: a new folder is complete before it gets its
name, and until then the former one is whole under one of its names.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

from hv15.errors import UserError
from hv15.models.weights.header import read_header
from hv15.records.json_values import RecordError, parse_object, text_of
from hv15.records.metadata import STEPS
from hv15.records.paths import ProjectPaths, average_of
from hv15.records.training import (
    RECORD,
    TrainingRecord,
    known_record,
    set_aside,
    state_content,
    state_folders,
    step_of,
)
from hv15.train.origin import STATES, Origin, copy_file, keep_origin, link_file
from hv15.train.segments import earlier_segments

log = logging.getLogger(__name__)

_PATHS = ProjectPaths()
_NAMED = (
    _PATHS.metrics,
    _PATHS.checkpoints,
    _PATHS.previews,
    _PATHS.states,
    _PATHS.origin,
    _PATHS.summary,
    _PATHS.curves,
    _PATHS.tensorboard,
    _PATHS.wandb,
    _PATHS.trained_dataset,
    _PATHS.sample_now,
)
TRAINING_FILES = {RECORD, *(path.name for path in _NAMED)}


@dataclass(frozen=True)
class Choice:
    """How a training continues, from what is there."""

    source: Path | None = None
    """The folder that it continues in, or whose state it continues from; None: it begins in a new one."""
    step: int = 0
    """The number of finished steps that are there."""
    whole: bool = True
    """Whether it continues in `source` itself. If not, that one is further than the wanted length and is kept as it is;
    a new folder gets its state, and what belongs to the steps before it."""


def choose(training: Path, owner: str, total: int | None) -> Choice:
    """Choose how a training continues so that as few steps as possible are done again.

    Args:
        training: `results/train`.
        owner: digest of its past.
        total: its length in steps; None if it is not known yet.
    """
    if training.exists() and owner_of(training) is None:
        return Choice(training, furthest(training))
    mine = [folder for folder in (training, *set_aside(training)) if owner_of(folder) == owner]
    best = Choice()
    for folder in mine:
        step = furthest(folder)
        if (total is None or step <= total) and (best.source is None or step > best.step):
            best = Choice(folder, step)
    for state in (state for folder in mine for state in state_folders(folder / STATES)):
        step = step_of(state)
        if total is not None and best.step < step <= total and _is_readable(state):
            best = Choice(state.parent.parent, step, whole=False)
    return best


def _is_readable(state: Path) -> bool:
    try:
        state_content(state)
    except RecordError:
        return False
    return True


def claim_folder(training: Path, record: TrainingRecord, total: int | None, *, named: Path | None = None) -> None:
    """Make the folder that of this training, with the progress that is there, and with its origin if it has one.

    Args:
        training: `results/train`.
        total: the length of the training in steps.
        named: what `train.continue_from` names.

    Raises:
        UserError: the folder holds files that are not of a training; the origin is nowhere; or the disk is full.
    """
    owner = owner_of(training)
    foreign = sorted(path.name for path in training.glob("[!.]*") if path.name not in TRAINING_FILES)
    if owner is None and foreign:
        raise UserError.at(
            training,
            f"the training would write here, but the folder holds other files (first {foreign[0]})",
            hint="use another output folder for the LoRA",
        )
    new = training.with_name(f".{training.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    choice = choose(training, record.digest, total)
    if choice.source == training and choice.whole:
        _complete(training, record, training, named)
        return
    if choice.source is None or not choice.whole:
        try:
            new.mkdir(parents=True)
            if choice.source is not None:
                _take_steps(choice.source, choice.step, new)
            _complete(new, record, training, named)
        except UserError:
            shutil.rmtree(new, ignore_errors=True)
            raise
    if owner is not None:
        aside = free_name(training, owner)
        training.rename(aside)
        log.warning("%s is of another configuration: moved to %s", training, aside)
    if choice.source is not None and choice.whole:
        choice.source.rename(training)
        log.info("%s is of this configuration: moved back to %s", choice.source, training)
        _complete(training, record, training, named)
    else:
        new.rename(training)


def owner_of(folder: Path) -> str | None:
    """Return the digest of the past of a folder's training, by its record or its states; None if neither tells."""
    if (record := known_record(folder)) is not None:
        return record.digest
    for state in state_folders(folder / STATES):
        with suppress(RecordError):
            return text_of(state_content(state), "spec")
    return None


def furthest(folder: Path) -> int:
    """Return the number of finished steps of a folder's newest state; 0 if there is none."""
    return max(map(step_of, state_folders(folder / STATES)), default=0)


def free_name(training: Path, owner: str) -> Path:
    """Return the name that the folder of a training would get if it were moved aside now."""
    name = f"{training.name}-{owner[:8]}"
    names = (training.with_name(name if number == 1 else f"{name}-{number}") for number in count(1))
    return next(path for path in names if not path.exists())


def _complete(folder: Path, record: TrainingRecord, training: Path, named: Path | None) -> None:
    """Write into a folder what a training has before its first step."""
    origin = Origin.of_spec(record.past)
    if origin is not None:
        kept = keep_origin(origin, folder, training, named)
        record = replace(record, segments=earlier_segments(origin, kept))
    if known_record(folder) != record:
        record.write(folder)


def _take_steps(source: Path, step: int, new: Path) -> None:
    """Give a new folder a state of another, and what belongs to the steps before it.

    Raises:
        UserError: the disk is full.
    """
    state = next(each for each in state_folders(source / STATES) if step_of(each) == step)
    size = state_content(state).get("metrics_offset")
    try:
        (new / STATES / state.name).mkdir(parents=True)
        for file in state.iterdir():
            link_file(file, new / STATES / state.name / file.name)
        metrics = new / _PATHS.metrics.name
        if isinstance(size, int) and (source / metrics.name).is_file():
            copy_file(source / metrics.name, metrics, size)
            for name in (_PATHS.trained_dataset.name, *_files_of(metrics), *_best_until(source, step)):
                if (source / name).is_file() and not (new / name).exists():
                    (new / name).parent.mkdir(parents=True, exist_ok=True)
                    link_file(source / name, new / name)
    except OSError as error:
        raise UserError.at(
            new, f"cannot be written: {error.strerror or error}", hint="free some disk space, then run it again"
        ) from error


def _best_until(source: Path, step: int) -> list[str]:
    """Return the files of the LoRA with the lowest loss, relative to its folder; none if it is of a later step."""
    best = source / _PATHS.best.relative_to(_PATHS.training)
    try:
        is_within = int(read_header(best).metadata[STEPS]) <= step
    except (KeyError, ValueError, OSError, UserError):
        return []
    return [str(file.relative_to(source)) for file in (best, average_of(best))] if is_within else []


def _files_of(metrics: Path) -> Iterator[str]:
    """Yield the files that a metrics file names, such as checkpoints, relative to its folder."""
    with metrics.open("rb") as lines:
        for line in lines:
            if b'"path"' not in line:
                continue
            try:
                name = text_of(parse_object(line), "path")
            except RecordError:
                continue
            if name and not Path(name).is_absolute() and ".." not in Path(name).parts:
                yield name
