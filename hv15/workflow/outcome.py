"""What becomes of the training that is there when the training has to run, in words: it continues, or is kept aside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from hv15.config import TrainSettings
from hv15.config.fields import affects
from hv15.config.section import Affects
from hv15.project import Project
from hv15.records.json_values import Json, JsonObject
from hv15.records.training import TrainingRecord, known_record
from hv15.train.folder import Choice, choose, free_name, furthest
from hv15.train.origin import ENTRY, Origin
from hv15.train.past import past_of

_OF_THE_NETWORK = [name for name in TrainSettings.model_fields if affects(TrainSettings, name) == Affects.NETWORK]
"""Settings without which a state's weights do not fit."""


class Outcome(NamedTuple):
    """What happens to what was trained so far, in words."""

    begin: str
    """How the training begins; "" if at its first step."""
    kept: str
    """What makes room for it and is kept; "" if nothing does."""


def outcome(project: Project, wanted: JsonObject) -> Outcome:
    """Return what happens if a training with this spec starts now.

    Raises:
        UserError: as `Project.training_spec`.
    """
    train, training = project.settings.train, project.paths.training
    record = TrainingRecord(past_of(train, wanted), {})
    choice = choose(training, record.digest, train.max_train_steps)
    begin = _begin(choice, training.name, train.max_train_steps, Origin.of_spec(wanted))
    there, steps = known_record(training), furthest(training)
    if there is None or (choice.source == training and choice.whole) or not steps:
        return Outcome(begin, "")
    kept = f"the training of {_steps(steps)} is kept in {free_name(training, there.digest).name}"
    is_another = there.digest != record.digest and train.continue_from is None
    if is_another and not choice.step and _fits(there.past, record.past):
        settings = [f"train.{ENTRY}: latest"]
        if not _same_optimizer(there.past, record.past):
            settings.append("train.reset_optimizer: true")
        if train.max_train_steps is not None and train.max_train_steps <= steps:
            settings.append("a greater train.max_train_steps")
        *before, last = settings
        listed = f"{', '.join(before)} and {last}" if before else last
        kept += f"; to continue from it instead set {listed}"
    return Outcome(begin, kept)


def _begin(choice: Choice, training: str, total: int | None, origin: Origin | None) -> str:
    if choice.source is not None and choice.step:
        back = "" if choice.source.name == training else f"the one in {choice.source.name} comes back: "
        done = choice.step == total
        return back + ("no step is trained again" if done else f"the training continues after step {choice.step:,}")
    if origin is not None and origin.kind == "state":
        return f"the training continues after step {origin.step:,} of another one"
    return ""


def _steps(count: int) -> str:
    return f"{count:,} step{'s' * (count != 1)}"


def _fits(former: Mapping[str, Json], past: Mapping[str, Json]) -> bool:
    """Whether a state's weights fit the new training."""
    return former.get("dit") == past.get("dit") and all(
        _setting(former, name) == _setting(past, name) for name in _OF_THE_NETWORK
    )


def _same_optimizer(former: Mapping[str, Json], past: Mapping[str, Json]) -> bool:
    return _setting(former, "optimizer_type") == _setting(past, "optimizer_type")


def _setting(past: Mapping[str, Json], name: str) -> Json:
    train = past.get("train")
    return train.get(name) if isinstance(train, dict) else None
