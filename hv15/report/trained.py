"""The facts about a trained LoRA, as its file and its training's records tell them; nothing is from the config."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast, get_args

from hv15.choices import NetworkType, Task
from hv15.models.weights.header import read_header
from hv15.records.json_values import Json, JsonObject, RecordError, as_object, parse_json, parse_object
from hv15.records.metadata import (
    CLIP_SIZES,
    CLIPS,
    COMMIT,
    CONFIG,
    DATASET_SIZE,
    EPOCHS,
    MADE_FROM,
    STEPS,
    TASK,
    VERSIONS,
)
from hv15.records.metrics import ValidationRecord, read_records
from hv15.records.paths import ProjectPaths
from hv15.records.summary import TrainingSummary

KINDS: Mapping[NetworkType, str] = {"lora": "LoRA", "dora": "DoRA", "loha": "LoHa", "lokr": "LoKr"}
TASKS: Mapping[Task, str] = {"t2v": "text-to-video", "i2v": "image-to-video"}


@dataclass(frozen=True)
class TrainedLoRA:
    """One published LoRA, with what is known of its training."""

    metadata: Mapping[str, str]
    """Of its file."""
    size: int
    """Bytes of its file."""
    summary: TrainingSummary | None
    """None while its training is not finished (`train.publish_step`)."""
    validations: tuple[ValidationRecord, ...]
    """Those up to its step whose loss is a number, in the order of their steps."""

    @classmethod
    def read(cls, paths: ProjectPaths) -> TrainedLoRA:
        """Read the published LoRA of a project, or of an experiment.

        Raises:
            UserError: the LoRA is missing or damaged.
        """
        found = cls(
            read_header(paths.lora).metadata, paths.lora.stat().st_size, _summary(paths), _validations(paths.metrics)
        )
        until = found.steps or None  # an earlier step may be published, of which later validations tell nothing
        so_far = (each for each in found.validations if until is None or each.step <= until)
        return replace(found, validations=tuple(so_far))

    @property
    def config(self) -> JsonObject:
        """The config that it tells; empty if it tells none."""
        return _object(self.metadata.get(CONFIG))

    @property
    def made_from(self) -> JsonObject:
        """What it tells that it depends on; empty if it tells nothing."""
        return _object(self.metadata.get(MADE_FROM))

    @property
    def train(self) -> JsonObject:
        """The settings of its training."""
        train = self.config.get("train")
        return train if isinstance(train, dict) else {}

    @property
    def task(self) -> Task:
        """What it was trained for."""
        return "i2v" if self.metadata.get(TASK) == "i2v" else "t2v"

    @property
    def kind(self) -> str:
        """Such as LoRA, DoRA."""
        network = self.train.get("network_type")
        return KINDS[cast("NetworkType", network)] if network in get_args(NetworkType) else "LoRA"

    @property
    def rank(self) -> str:
        """The rank of all its layers; "" if they have different ones."""
        rank = self.metadata.get("ss_network_dim", "")
        return rank if rank.isdecimal() else ""

    @property
    def alpha(self) -> str:
        """The alpha of all its layers; "" if they have different ones."""
        alpha = self.metadata.get("ss_network_alpha", "")
        return "" if alpha == "Dynamic" else _short(alpha)

    @property
    def steps(self) -> int:
        """The number of its training's steps, of the last one if it was continued."""
        return _whole(self.metadata.get(STEPS))

    @property
    def is_last(self) -> bool:
        """Whether it is what its training ended in, not the LoRA after an earlier step."""
        return self.summary is not None and self.summary.steps == self.steps

    @property
    def epochs(self) -> str:
        return self.metadata.get(EPOCHS, "")

    @property
    def clips(self) -> int:
        """The number of clips that it was trained on."""
        return _whole(self.metadata.get(CLIPS))

    @property
    def media(self) -> int:
        """The number of files that they were cut from."""
        return _whole(self.metadata.get(DATASET_SIZE))

    @property
    def largest(self) -> tuple[int, int, int] | None:
        """Frames, height and width in pixels of the largest clip."""
        from hv15.grid import video_size

        try:
            shapes = parse_json(self.metadata.get(CLIP_SIZES, ""))
        except RecordError:
            return None
        found = [tuple(shape) for shape in shapes if isinstance(shape, list)] if isinstance(shapes, list) else []
        whole = [shape for shape in found if len(shape) == 3 and all(isinstance(each, int) for each in shape)]
        if not whole:
            return None
        frames, rows, columns = max(cast("list[tuple[int, int, int]]", whole), key=lambda s: (s[1] * s[2], s))
        return video_size(frames, rows, columns)

    @property
    def versions(self) -> dict[str, str]:
        """The programs that trained it, with their versions."""
        return {name: str(version) for name, version in _object(self.metadata.get(VERSIONS)).items()}

    @property
    def installation(self) -> str:
        """The command that installs the same, without what a build adds to a version: `torch==2.9.0`. hv15 comes from a
        clone at its commit, if that is known."""
        packages = {name: f"{name}=={version.partition('+')[0]}" for name, version in self.versions.items()}
        commit = self.metadata.get(COMMIT, "")
        if not re.fullmatch("[0-9a-f]{40,64}", commit):
            return f"pip install {' '.join(packages.values())}"
        others = " ".join(["-e", ".", *(text for name, text in packages.items() if name != "hv15")])
        return f"git checkout {commit} && pip install {others}    # in a clone of hv15"

    @property
    def best(self) -> ValidationRecord | None:
        """The validation with the lowest loss, the first of several."""
        return min(self.validations, key=lambda each: each.loss or 0.0, default=None)

    def setting(self, name: str) -> str:
        """Return a setting of `train` as text; "" if it is not known or not set."""
        value = self.train.get(name)
        return "" if value is None else value if isinstance(value, str) else _short(json.dumps(value))


def _summary(paths: ProjectPaths) -> TrainingSummary | None:
    try:
        return TrainingSummary.load(paths.summary)
    except RecordError:
        return None


def _validations(metrics: Path) -> tuple[ValidationRecord, ...]:
    try:
        records = list(read_records(metrics))
    except OSError:
        return ()
    return tuple(each for each in records if isinstance(each, ValidationRecord) and each.loss is not None)


def _object(text: str | None) -> JsonObject:
    try:
        return {} if text is None else as_object(parse_object(text))
    except RecordError:
        return {}


def _short(number: str) -> str:
    """Return a number without a fraction that is nothing; other texts as they are."""
    return number.removesuffix(".0")


def _whole(value: Json) -> int:
    return int(value) if isinstance(value, str) and value.isdecimal() else 0
