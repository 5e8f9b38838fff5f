"""The configs by which the trainings are repeated that made a LoRA one after the other, from what its file tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hv15.errors import UserError
from hv15.records.json_values import Json, JsonObject, RecordError, as_object, parse_json
from hv15.records.metadata import CONFIG, MADE_FROM
from hv15.records.training import STATES_KEPT
from hv15.train.origin import ENTRY, Origin
from hv15.train.segments import segments_of_lora


@dataclass(frozen=True)
class SegmentConfig:
    """How one of the trainings is repeated that made a LoRA one after the other."""

    config: JsonObject
    """It keeps what the following training starts from."""
    start_of_next: str = ""
    """What that is, in words, if it is not simply the result: "its state after step 40"."""
    stop_after: int | None = None
    """The step after which the training has to be stopped, because its learning rate depends on a greater length."""
    is_short: bool = False
    """Whether what the next one starts from is still there at the end, if it is not stopped."""


def segment_config(path: Path, metadata: Mapping[str, str], number: int) -> SegmentConfig:
    """Return the config of one of the trainings that made a LoRA.

    Args:
        path: the LoRA's file, for messages.
        number: from 1 to the number of trainings.

    Raises:
        UserError: the file does not tell it.
    """
    config, segments = told_config_of(path, metadata), segments_of_lora(metadata)
    if number < len(segments):
        return _of_earlier(path, segments[number - 1], segments[number])
    return SegmentConfig(_with_digest(config, _parsed(metadata.get(MADE_FROM, ""))))


def told_config_of(path: Path, metadata: Mapping[str, str]) -> JsonObject:
    """Return the config that a LoRA tells: that of the last training that made it.

    Args:
        path: the LoRA's file, for messages.

    Raises:
        UserError: it tells none.
    """
    config = _parsed(metadata.get(CONFIG, ""))
    if not isinstance(config, dict):
        raise UserError.at(path, "holds no hv15 config", hint="only LoRAs that hv15 trained carry one")
    return _without_notices(config)


def _of_earlier(path: Path, segment: JsonObject, following: JsonObject) -> SegmentConfig:
    """The config of an earlier training, which keeps what the following one starts from."""
    config, made_from, end = (segment.get(name) for name in ("config", "made_from", "to_step"))
    train = config.get("train") if isinstance(config, dict) else None
    if not isinstance(config, dict) or not isinstance(train, dict):
        raise UserError.at(path, "does not tell the config of this training", hint="it was known by its state alone")
    config = _with_digest(_without_notices(config), made_from)
    length, origin = train.get("max_train_steps"), following.get("origin")
    if not isinstance(end, int) or length == end:
        return SegmentConfig(config)
    if isinstance(origin, dict) and "lora" in origin:
        return SegmentConfig(_keeping(config, "save_every_n_steps", end), f"its copy of step {end}")
    # its learning rate depends on its length, so it cannot just be shorter
    is_short = isinstance(length, int) and length <= STATES_KEPT * end
    return SegmentConfig(
        _keeping(config, "state_every_n_steps", end),
        f"its state after step {end}",
        stop_after=end,
        is_short=is_short,
    )


def _keeping(config: JsonObject, setting: str, step: int) -> JsonObject:
    return {**config, "train": {**as_object(config["train"]), setting: step}}


def _without_notices(config: JsonObject) -> JsonObject:
    """A config without what hv15 never writes into a file: a command that somebody else put there would be run."""
    return {name: value for name, value in config.items() if name != "notify"}


def _with_digest(config: JsonObject, made_from: Json) -> JsonObject:
    """Return a config that names the state that it started from by its digest: `latest` is another one by now."""
    origin = Origin.of_spec(made_from) if isinstance(made_from, dict) else None
    train = config.get("train")
    if origin is None or origin.kind != "state" or not isinstance(train, dict):
        return config
    return {**config, "train": {**train, ENTRY: origin.digest}}


def _parsed(text: str) -> Json:
    try:
        return parse_json(text)
    except RecordError:
        return text
