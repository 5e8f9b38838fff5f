"""What `train.continue_from` stands for: found by its content when the workflow is planned, and then kept.

`latest`, and paths into the project's results, mean something else as soon as the training has begun, because its
folder then takes the place of the one that it started from. So what was found once is kept for as long as the rest of
the training's past is the same. It stands in the training's spec, in its folder and in its LoRA.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from hv15.config import Settings
from hv15.config.training.start import LATEST
from hv15.errors import UserError
from hv15.project.metadata import product_metadata
from hv15.records.json_values import Json, JsonObject, RecordError, as_object, parse_object, text_of
from hv15.records.metadata import CONFIG, MADE_FROM
from hv15.records.paths import ProjectPaths
from hv15.records.rules import Rule
from hv15.records.spec import Spec
from hv15.records.training import STATE, known_record, set_aside, state_folders, state_name
from hv15.train.origin import ENTRY, LORA, STATES, Origin, origin_of_state, places, refuse_finished
from hv15.train.past import past_of

_SETTING = f"train.{ENTRY}"


def find_start(
    settings: Settings, paths: ProjectPaths, spec: JsonObject, file_digest: Callable[[str, str], str]
) -> Origin | None:
    """Return what the training starts from; None if it is a new LoRA.

    Args:
        spec: of the training, without its origin.
        file_digest: of (setting, path): the content of a file that a setting names.

    Raises:
        UserError: there is no such thing, it is damaged, or no steps are left after it.
    """
    train = settings.train
    if train.continue_from is None:
        return None
    found = None if _is_fixed(settings, paths) else _known(settings, paths, spec)
    found = found or _find(settings, paths, file_digest)
    if train.max_train_steps is not None:
        refuse_finished(found, train.max_train_steps)
    return replace(found, reset_optimizer=train.reset_optimizer and found.kind == "state")


def _is_fixed(settings: Settings, paths: ProjectPaths) -> bool:
    """Whether the setting names a place that no training of the project changes, and something is there."""
    text = settings.train.continue_from or ""
    if text == LATEST or _is_digest(text):
        return False
    place = settings.resolve(text)
    results = ProjectPaths(paths.root).results
    return place.exists() and not place.resolve().is_relative_to(results.resolve())


def _is_digest(text: str) -> bool:
    return re.fullmatch("[0-9a-f]{64}", text) is not None


# -- what was found before ------------------------------------------------------------------------------------------


def _known(settings: Settings, paths: ProjectPaths, spec: JsonObject) -> Origin | None:
    """Return what the same setting was found to be for the same training."""
    wanted = past_of(settings.train, spec)
    for text, recorded in _recorded(paths):
        if text != settings.train.continue_from and not (_is_digest(text) and _means_no_place(settings)):
            continue
        try:
            past = past_of(settings.train, recorded)
        except RecordError:
            continue
        origin = Origin.of_spec(past)
        if origin is not None and _with_entry(past, None) == _with_entry(wanted, None):
            return origin
    return None


def _means_no_place(settings: Settings) -> bool:
    """Whether the setting names nothing that is there by itself. A LoRA tells the digest of what it meant then."""
    text = settings.train.continue_from or ""
    return text == LATEST or not (_is_digest(text) or settings.resolve(text).exists())


def _recorded(paths: ProjectPaths) -> Iterator[tuple[str, JsonObject]]:
    """Yield the setting, and the spec or its past, of each place that tells of the project's training."""
    try:
        spec = Spec.load(paths.spec(Rule.TRAIN))
        yield text_of(spec.details, ENTRY), spec.wanted
    except RecordError:
        pass
    if (record := known_record(paths.training)) is not None:
        yield record.continue_from, record.past
    for product in (paths.trained, paths.lora):
        try:
            metadata = product_metadata(product)
            yield text_of(as_object(parse_object(metadata[CONFIG])["train"]), ENTRY), parse_object(metadata[MADE_FROM])
        except Exception:  # missing, or whatever a damaged file does to the reader
            continue


def _with_entry(spec: JsonObject, entry: Json) -> JsonObject:
    return {**spec, "train": {**as_object(spec["train"]), ENTRY: entry}}


def with_origin(spec: JsonObject, origin: Origin) -> JsonObject:
    """Return a training's spec with its origin."""
    return _with_entry(spec, origin.to_json())


# -- what is there now ----------------------------------------------------------------------------------------------


def _find(settings: Settings, paths: ProjectPaths, file_digest: Callable[[str, str], str]) -> Origin:
    text = settings.train.continue_from or ""
    if text == LATEST:
        return _latest(paths)
    if _is_digest(text):
        return _by_digest(paths, text)
    place = settings.resolve(text)
    if (place / STATE).is_file():
        return _first_whole([place], f"{_SETTING}: {place}")
    if (place / STATES).is_dir():
        return _first_whole(state_folders(place / STATES), f"{_SETTING}: {place}")
    if (place / LORA).is_file():
        place = place / LORA
    if place.is_dir():
        raise UserError(
            f"{_SETTING}: {place} is a folder without a state",
            hint=f"give the folder of a state, such as {ProjectPaths().states / state_name(1600)}, or a LoRA file",
        )
    return Origin("lora", file_digest(_SETTING, str(place)))


def _latest(paths: ProjectPaths) -> Origin:
    """The newest state of the project's training. If it has none yet, that of the one that was moved aside last."""
    aside = [state for folder in set_aside(paths.training) for state in state_folders(folder / STATES)[:1]]
    aside.sort(key=lambda state: state.stat().st_mtime_ns, reverse=True)
    return _first_whole([*state_folders(paths.training / STATES), *aside], f"{_SETTING}: {paths.training}")


def _first_whole(states: list[Path], subject: str) -> Origin:
    """Return the first state that is not damaged."""
    trouble = "holds no state"
    for state in states:
        try:
            return origin_of_state(state)
        except RecordError as error:
            trouble = str(error)
    raise UserError(
        f"{subject}: {trouble}",
        hint="name the folder of another state, a checkpoint or a LoRA file, or remove the setting to begin anew",
    )


def _by_digest(paths: ProjectPaths, text: str) -> Origin:
    for state in places("state", paths.training):
        try:
            origin = origin_of_state(state)
        except RecordError:
            continue
        if origin.digest == text:
            return origin
    raise UserError(
        f"{_SETTING}: no state in {paths.results} has the digest {text[:8]}...",
        hint="train what it started from first (`hv15 show LORA` lists it), then set this to latest",
    )
