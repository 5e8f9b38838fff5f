"""What a LoRA tells of the trainings that made it, as far as they can be repeated from it. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hv15.digest import file_sha256
from hv15.errors import UserError
from hv15.models.weights.header import read_header
from hv15.project.checkpoints import STEP
from hv15.records.json_values import JsonObject, RecordError, as_object, parse_object, text_of
from hv15.records.metadata import (
    AVERAGE,
    CONFIG,
    CONVERTED_TO,
    DEVICE,
    EMA_DECAY,
    MADE_FROM,
    MADE_WITH,
    VERSIONS,
)
from hv15.records.paths import ProjectPaths
from hv15.train.origin import ENTRY, Origin
from hv15.train.segments import segments_of_lora
from hv15.workflow.segment_configs import segment_config

_SAVING = "save_every_n_steps"
_OWN = "hv15."


@dataclass(frozen=True)
class ToldTraining:
    """One training, as the LoRA that came of it tells it."""

    config: JsonObject
    made_from: JsonObject
    """Its spec, or the past of it."""
    origin: Origin | None
    """What it started from."""
    first: int
    """The number of finished steps before it."""
    last: int
    """The number of finished steps at which the LoRA, or the next training, left it."""
    stop_after: int | None = None
    """The step after which it is to be stopped; None: it is trained to its end."""

    @property
    def dataset(self) -> str:
        """The digest of what it was trained on."""
        return text_of(as_object(self.made_from.get("dataset", {})), "digest")


@dataclass(frozen=True)
class ToldLoRA:
    """A LoRA that hv15 has trained."""

    path: Path
    sha256: str
    metadata: dict[str, str]
    trainings: tuple[ToldTraining, ...]

    @property
    def name(self) -> str:
        """Of the folder of its reproduction."""
        return self.sha256[:16]

    @property
    def step(self) -> int | None:
        """The step of its training that is published; None: it is the LoRA itself, or a copy of one of its steps."""
        step = self.trainings[-1].made_from.get(STEP)
        return step if isinstance(step, int) else None

    @property
    def steps(self) -> int:
        """Of all trainings together."""
        return sum(max(0, each.last - each.first) for each in self.trainings)

    @property
    def is_average(self) -> bool:
        """Whether it is the moving average of a LoRA."""
        return EMA_DECAY in self.metadata

    @property
    def versions(self) -> dict[str, str]:
        """The versions of the packages that trained it."""
        try:
            told = parse_object(self.metadata.get(VERSIONS, "{}"))
        except RecordError:
            return {}
        return {name: version for name, version in told.items() if isinstance(version, str)}

    @property
    def device(self) -> str:
        """What trained it; "" if it does not tell."""
        return self.metadata.get(DEVICE, "")


def told_lora(path: Path) -> ToldLoRA:
    """Return what a LoRA tells.

    Raises:
        UserError: it cannot be read, or does not tell how it was trained: it is of another program, a copy that tells
            less, or was made of other LoRAs.
    """
    metadata = read_header(path).metadata
    _refuse_others(path, metadata)
    segments = segments_of_lora(metadata)
    if not segments:
        raise UserError.at(path, "tells its training in a way that is not understood", hint="use another copy of it")
    trainings = []
    try:
        for number, segment in enumerate(segments, start=1):
            found = segment_config(path, metadata, number)
            made_from, following = as_object(segment.get("made_from")), segments[number : number + 1]
            first, last = segment.get("from_step"), segment.get("to_step")
            if not isinstance(first, int) or not isinstance(last, int):
                raise RecordError("steps are missing")
            config = found.config
            if not following or "lora" in as_object(following[0].get("origin")):
                config = _with(config, _SAVING, last)
            origin = Origin.of_spec({"train": {ENTRY: segment.get("origin")}})
            trainings.append(ToldTraining(config, made_from, origin, first, last, found.stop_after))
    except RecordError as error:
        raise UserError.at(
            path, f"does not tell training {number} of {len(segments)}: {error}", hint="use another copy of the LoRA"
        ) from None
    return ToldLoRA(path, file_sha256(path), metadata, tuple(trainings))


def _with(config: JsonObject, setting: str, value: int) -> JsonObject:
    """Return a config with another setting of `train`, which does not change what the LoRA tells of it."""
    return {**config, "train": {**as_object(config.get("train")), setting: value}}


def _refuse_others(path: Path, metadata: dict[str, str]) -> None:
    """Refuse files that no training has written.

    Raises:
        UserError: it is one.
    """
    if CONVERTED_TO in metadata:
        raise UserError.at(
            path,
            f"is a copy for {metadata[CONVERTED_TO]}, which is not trained but converted",
            hint=f"give the LoRA that it was made from, such as {ProjectPaths().lora}",
        )
    if AVERAGE in metadata or MADE_WITH in metadata:
        raise UserError.at(
            path,
            "was not trained, but made of other LoRAs",
            hint="`hv15 show` lists them: give one of those",
        )
    if not any(name.startswith(_OWN) for name in metadata):
        program = "another program" if metadata else "a program that tells nothing about it"
        raise UserError.at(
            path,
            f"was made by {program}, so how it was trained is not known",
            hint="give a LoRA that hv15 trained",
        )
    if CONFIG not in metadata or MADE_FROM not in metadata:
        raise UserError.at(
            path,
            "does not tell how it was trained: it is a copy without that (convert.metadata), or not a LoRA",
            hint=f"give the LoRA that hv15 trained, such as {ProjectPaths().lora}",
        )
