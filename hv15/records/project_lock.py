"""hv15.lock: what a project's LoRA depends on besides its config, as it was when `hv15 lock` wrote the file.

One line a fact, sorted, so that a diff of two such files says what has changed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from hv15.atomic import write_json
from hv15.records.fields import from_json, to_json
from hv15.records.json_values import JsonObject, RecordError, as_object, read_record, text_of
from hv15.records.trained_dataset import TrainedDataset, TrainedPair

VERSION = 1


@dataclass(frozen=True)
class Programs:
    """What runs, and on what."""

    hv15: str
    """Its version."""
    commit: str
    """The commit of its clone, or of that which its wheel was built from; "" if nobody knows."""
    uncommitted: str
    """sha256 of what differs from that commit there; "" if nothing does."""
    python: str
    processor: str
    gpus: tuple[str, ...]
    """The names of the GPUs, in the driver's order."""
    packages: dict[str, str]
    """The versions of the packages that hv15 needs, by name."""


@dataclass(frozen=True)
class LockedModel:
    """One model."""

    identity: str
    """What stands for it in digests: a fingerprint, or where it is downloaded from."""
    fingerprint: str = ""
    """Of its file or folder; "" while that is not there."""


@dataclass(frozen=True)
class ProjectLock:
    """The content of the file."""

    programs: Programs
    models: dict[str, LockedModel]
    """By role."""
    training: JsonObject
    """The spec of the training; empty for a project that only samples."""
    dataset: TrainedDataset | None
    """What is trained on, by name (`with_distinct_names`)."""

    def write(self, path: Path) -> None:
        """Write it atomically.

        Raises:
            UserError: the disk is full, or the folder cannot be written.
        """
        content: JsonObject = {
            "version": VERSION,
            "programs": to_json(self.programs),
            "models": {role: to_json(model) for role, model in self.models.items()},
            "training": self.training,
        }
        if self.dataset is not None:
            clips: JsonObject = {each.name: _line(each) for each in self.dataset.pairs}
            content["dataset"] = {"digest": self.dataset.digest, "clips": clips}
        write_json(path, content)

    @classmethod
    def load(cls, path: Path) -> ProjectLock:
        """Read it.

        Raises:
            RecordError: it is missing, damaged, or of another version.
        """
        content = read_record(path, VERSION)
        dataset = content.get("dataset")
        return cls(
            from_json(Programs, as_object(content.get("programs"))),
            {role: from_json(LockedModel, as_object(each)) for role, each in as_object(content.get("models")).items()},
            as_object(content.get("training")),
            None if dataset is None else _dataset(as_object(dataset)),
        )


def with_distinct_names(dataset: TrainedDataset) -> TrainedDataset:
    """Return a dataset in which the second of two clips of one name (a list of clips may have them) gets a number."""
    pairs = dict[str, TrainedPair]()
    for pair in dataset.pairs:
        name, number = pair.name, 1
        while name in pairs:
            number += 1
            name = f"{pair.name} ({number})"
        pairs[name] = replace(pair, name=name)
    return TrainedDataset(dataset.digest, list(pairs.values()))


def _line(pair: TrainedPair) -> str:
    """Return the digests of a clip's file, its caption, its dataset's settings and its mask."""
    return " ".join(filter(None, (pair.media, pair.caption, pair.dataset, pair.mask)))


def _dataset(content: JsonObject) -> TrainedDataset:
    pairs = []
    for name, line in as_object(content.get("clips")).items():
        digests = line.split(" ") if isinstance(line, str) else []
        if len(digests) not in (3, 4):
            raise RecordError(f"{name:.60}: expected three or four digests")
        pairs.append(TrainedPair(name, *digests))
    return TrainedDataset(text_of(content, "digest"), pairs)
