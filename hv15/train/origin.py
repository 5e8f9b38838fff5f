"""What a training starts from instead of a new LoRA (`train.continue_from`): a state, or the weights of a LoRA file.

A spec names it by its content. The training keeps it in its own folder, `results/train/origin/`, so that it never
depends on the folder of the other training:

- of a state: all its files, and run.json of its training
- of a LoRA file: lora.safetensors
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hv15.digest import digest, file_sha256
from hv15.errors import UserError
from hv15.models.weights.fingerprint import model_fingerprint
from hv15.records.json_values import Json, JsonObject, RecordError, as_object, text_of
from hv15.records.paths import ProjectPaths
from hv15.records.training import RECORD, STATE, TrainingRecord, known_record, set_aside, state_content, state_folders

log = logging.getLogger(__name__)

OTHER_OPTIMIZER = "set train.reset_optimizer: true to begin with a new optimizer state, or use the optimizer of before"

OriginKind = Literal["state", "lora"]
"""A state with its optimizer, or a LoRA file."""
LORA = "lora.safetensors"
ENTRY = "continue_from"
"""The setting, and the entry of a spec's settings that names the origin."""
_PATHS = ProjectPaths()
ORIGIN, STATES, CHECKPOINTS = _PATHS.origin.name, _PATHS.states.name, _PATHS.checkpoints.name


@dataclass(frozen=True)
class Origin:
    """One origin, as a spec names it."""

    kind: OriginKind
    digest: str
    """Of its content: not where it is, nor when it was made."""
    step: int = 0
    """The number of finished steps, from which the new training counts on."""
    samples: int = 0
    """The number of samples in these steps."""
    reset_optimizer: bool = False

    def to_json(self) -> JsonObject:
        """Return the entry for the spec."""
        if self.kind == "lora":
            return {"lora": self.digest}
        counts: JsonObject = {"state": self.digest, "step": self.step, "samples": self.samples}
        return counts | {"reset_optimizer": self.reset_optimizer}

    @classmethod
    def of_spec(cls, spec: Mapping[str, Json]) -> Origin | None:
        """Return the origin that a spec names; None if there is none."""
        train = spec.get("train")
        entry = train.get(ENTRY) if isinstance(train, dict) else None
        if not isinstance(entry, dict):
            return None
        if "lora" in entry:
            return cls("lora", text_of(entry, "lora"))
        return cls(
            "state",
            text_of(entry, "state"),
            _count(entry, "step"),
            _count(entry, "samples"),
            entry.get("reset_optimizer") is True,
        )

    def __str__(self) -> str:
        if self.kind == "lora":
            return f"the LoRA {self.digest[:8]}"
        return f"the state {self.digest[:8]} after step {self.step:,}"


def _count(entry: JsonObject, name: str) -> int:
    value = entry.get(name)
    return value if isinstance(value, int) else 0


def origin_of_state(state: Path, *, reset_optimizer: bool = False) -> Origin:
    """Return a state's folder as an origin. Equal states of equal trainings are equal origins.

    Raises:
        RecordError: it is not a state, or is damaged.
    """
    content = state_content(state)
    identity = digest({name: content.get(name) for name in ("step", "samples", "spec", "sha256")})
    return Origin("state", identity, _count(content, "step"), _count(content, "samples"), reset_optimizer)


def origin_of_lora(file: Path) -> Origin:
    """Return a LoRA file as an origin.

    Raises:
        UserError: it is missing or damaged.
    """
    return Origin("lora", model_fingerprint(file))


def refuse_finished(origin: Origin, total: int) -> None:
    """Check that steps are left after an origin.

    Raises:
        UserError: the origin has as many steps as the training is to have, or more.
    """
    if origin.step >= total:
        raise UserError(
            f"train.continue_from: {origin}, and steps count on, but the training has {total:,} steps in all",
            hint="increase train.max_train_steps or train.max_train_epochs, or name an earlier state, such as "
            f"{_PATHS.origin} if that is there",
        )


# -- finding --------------------------------------------------------------------------------------------------------


def places(kind: OriginKind, training: Path, named: Path | None = None) -> Iterator[Path]:
    """Yield what may be an origin: states' folders or LoRA files that exist.

    Args:
        training: `results/train`; the trainings that were moved aside for it are looked through, too.
        named: what the setting names.
    """
    folders = [training, *set_aside(training)]
    found = [folder / ORIGIN for folder in folders]
    if kind == "state":
        if named is not None:
            found += [named, *state_folders(named / STATES)]
        found += [state for folder in folders for state in state_folders(folder / STATES)]
        yield from (path for path in found if (path / STATE).is_file())
        return
    files = [folder / LORA for folder in found if not (folder / STATE).exists()]
    files += [] if named is None else [named, named / LORA]
    files += [file for folder in folders for file in sorted((folder / CHECKPOINTS).glob("*.safetensors"))]
    yield from (file for file in files if file.is_file())


def find_origin(origin: Origin, training: Path, named: Path | None = None) -> Path | None:
    """Return where an origin is: a state's folder or a LoRA file; None if it is nowhere. Large files are not read."""
    return next((place for place in places(origin.kind, training, named) if _is(place, origin)), None)


def _is(place: Path, origin: Origin) -> bool:
    try:
        found = origin_of_state(place) if origin.kind == "state" else origin_of_lora(place)
    except (RecordError, UserError, OSError):
        return False
    return found.digest == origin.digest


def training_of(state: Path) -> TrainingRecord | None:
    """Return which training a state is of, as its folder or the folder of the training tells; None if neither does."""
    spec = state_content(state).get("spec")
    records = (known_record(state), known_record(state.parent.parent))
    return next((record for record in records if record is not None and record.digest == spec), None)


def refuse_other_optimizer(origin: Origin, place: Path, optimizer_type: str) -> None:
    """Check that an origin's optimizer state, if it is to be used, is for this optimizer.

    Args:
        place: where the origin is.
        optimizer_type: the setting of the new training.

    Raises:
        UserError: it is known to be another one's.
    """
    if origin.kind == "lora" or origin.reset_optimizer or (record := training_of(place)) is None:
        return
    train = record.past.get("train")
    former = text_of(train, "optimizer_type") if isinstance(train, dict) else ""
    if former not in ("", optimizer_type):
        raise UserError(
            f"train.continue_from: the state is one of {former}, but train.optimizer_type is {optimizer_type}",
            hint=OTHER_OPTIMIZER,
        )


# -- keeping --------------------------------------------------------------------------------------------------------


def keep_origin(origin: Origin, folder: Path, training: Path, named: Path | None = None) -> Path:
    """Keep an origin in a training's folder, which need not have its final name yet, and return where.

    Does nothing if it is there. It appears as a whole, or not at all.

    Raises:
        UserError: it is nowhere, or damaged; or the disk is full.
    """
    kept = folder / ORIGIN
    if _is(kept if origin.kind == "state" else kept / LORA, origin):
        return kept
    part = folder / f".{ORIGIN}.tmp"
    for place in places(origin.kind, training, named):
        if not _is(place, origin):
            continue
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            _take(place, part)
            _refuse_damaged(part)
        except (RecordError, UserError) as error:
            log.warning("%s: cannot be used, skipped: %s", place, error)
            continue
        except OSError as error:
            raise UserError.at(
                kept, f"cannot be written: {error.strerror or error}", hint="free some disk space, then run it again"
            ) from error
        shutil.rmtree(kept, ignore_errors=True)
        part.rename(kept)
        return kept
    raise UserError(
        f"train.continue_from: {origin} is not there any more",
        hint=f"put its folder back into {training.parent}, or name another one",
    )


def _take(place: Path, part: Path) -> None:
    """Link or copy an origin's files into an empty folder."""
    if place.is_file():
        copy_file(place, part / LORA)  # no link: somebody may write into the other file
        return
    for file in place.iterdir():
        if file.is_file():
            link_file(file, part / file.name)
    if (record := training_of(place)) is not None and not (part / RECORD).exists():
        record.write(part)


def _refuse_damaged(kept: Path) -> None:
    """Read all of an origin, and raise RecordError or UserError if it is damaged."""
    if not (kept / STATE).exists():
        origin_of_lora(kept / LORA)
        return
    for name, expected in as_object(state_content(kept).get("sha256")).items():
        if not (kept / name).is_file() or file_sha256(kept / name) != expected:
            raise RecordError(f"{name} is damaged")


def link_file(source: Path, target: Path) -> None:
    """Make a file that is never changed appear in a second place; a copy where that is not possible."""
    try:
        os.link(source, target)
    except OSError:
        copy_file(source, target)


def copy_file(source: Path, target: Path, size: int | None = None) -> None:
    """Copy a file, or its first `size` bytes, to the disk itself."""
    with source.open("rb") as reader, target.open("wb") as writer:
        left = size
        while chunk := reader.read(1 << 20 if left is None else min(left, 1 << 20)):
            writer.write(chunk)
            left = None if left is None else left - len(chunk)
        writer.flush()
        os.fsync(writer.fileno())
