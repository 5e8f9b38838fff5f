"""The folder of a training that another run of the project has done: linked, so that it is known there as well.

Its states and copies take no space twice, and it can go on from them as if it had been done there.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from hv15.errors import UserError
from hv15.records.paths import ProjectPaths
from hv15.train.folder import TRAINING_FILES, free_name, owner_of
from hv15.train.origin import copy_file, link_file

_PATHS = ProjectPaths()
_GROWING = {_PATHS.metrics.name}
"""Files that are written on, so that they are copied."""
_NOT_TAKEN = {_PATHS.tensorboard.name, _PATHS.wandb.name, _PATHS.sample_now.name}


def share_training(source: Path, training: Path, owner: str) -> bool:
    """Make a training's folder appear in another run; one that is there and is another's is moved aside.

    Args:
        source: the folder of the run that did the training.
        training: `results/NAME/train`.
        owner: digest of the training's past.

    Returns:
        Whether the source is the folder of this training.

    Raises:
        UserError: the disk is full.
    """
    if owner_of(source) != owner:
        return False
    new = training.with_name(f".{training.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    try:
        new.mkdir(parents=True)
        for entry in sorted(source.iterdir()):
            if entry.name in TRAINING_FILES - _NOT_TAKEN:
                _take(entry, new / entry.name)
        former = owner_of(training)
        if training.exists():
            training.rename(free_name(training, former or owner))
        new.rename(training)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        found = f"cannot be written: {error.strerror or error}"
        raise UserError.at(training, found, hint="free some disk space, then run it again") from error
    return True


def _take(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, copy_function=lambda path, copy: link_file(Path(path), Path(copy)))
    elif source.name in _GROWING:
        copy_file(source, target)
    else:
        link_file(source, target)
