"""`experiments:` and `sweep:`: trainings with other values of some settings, each with a folder of results of its own.

A sweep makes an experiment of every combination of its values, named by what differs: `network_dim-8_seed-1`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice, product
from typing import Annotated

from pydantic import BeforeValidator, Field, JsonValue, ValidationError

from hv15.config.section import Conflict, Section, Seed
from hv15.digest import short
from hv15.records.json_values import Json
from hv15.records.problems import Location, dotted
from hv15.records.result_names import is_result_name

MOST = 1000
"""Experiments of one config: a grid of a few long lists is a mistake sooner than a plan."""
LONGEST = 100
"""Characters of a name."""
GRID: Location = ("sweep", "grid")
SEED: Location = ("train", "seed")
"""What `sweep.seeds` stands for."""
OWN_NAME = "name"
"""The key of an entry of `sweep.list` that is no setting."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*(?<!\.)")
_SETTING = re.compile(r"[A-Za-z_]\w*(\[\d+\])*(\.[A-Za-z_]\w*(\[\d+\])*)*")
_UNSUITED = re.compile(r"[^A-Za-z0-9.+]+")

FIXED: dict[Location, str] = {
    ("experiments",): "an experiment has no experiments of its own",
    ("sweep",): "an experiment has no experiments of its own",
    ("runtime",): "it is of the machine, the same for all",
    ("notify",): "it is of a run, which makes all of them",
    ("cache", "directory"): "all experiments share one store",
    ("cache", "shards"): "all experiments share what is encoded",
    ("models", "source"): "all experiments take their models from one place; name other files by their paths",
    ("models", "directory"): "all experiments take their models from one place",
    ("convert", "output_name"): "an experiment's files are in a folder of its own already",
}
"""Settings that are the same for all experiments, and why."""


@dataclass(frozen=True)
class OwnValue:
    """One setting to which an experiment gives a value of its own."""

    setting: Location
    value: Json
    place: Location
    """Where the value stands in the config: ("experiments", "fast", "train.learning_rate")."""

    @property
    def key_place(self) -> Location:
        """Where its setting stands, which several values of a grid have in common."""
        return self.place[:-1] if self.place[:2] == GRID else self.place


@dataclass(frozen=True)
class Experiment:
    """An experiment: its name, and what it changes in the config."""

    name: str
    changes: tuple[OwnValue, ...]
    place: Location
    """Where it stands in the config."""

    @property
    def values(self) -> dict[str, Json]:
        """Its own values, by setting as users write it."""
        return {dotted(change.setting): change.value for change in self.changes}


def _without_null(value: object) -> object:
    """An empty section or experiment: `base:`."""
    if isinstance(value, dict):
        return {key: {} if each is None else each for key, each in value.items()}
    return {} if value is None else value


def _no_bool(value: object) -> object:
    """Refuse true and false, as a section does for its own numbers."""
    if isinstance(value, bool):
        raise ValueError(f"found {str(value).lower()}, expected a whole number")
    return value


Values = dict[str, JsonValue]
"""Values by settings: dotted names (`train.seed`) or sections as in the config."""

Experiments = Annotated[dict[str, Values], BeforeValidator(_without_null)]


class SweepSettings(Section):
    """Experiments that differ in the values of a few settings. Every value of `grid` is combined with every other one,
    with every entry of `list`, and with every seed."""

    grid: dict[str, Annotated[tuple[JsonValue, ...], Field(min_length=1)]] = Field({})
    """Lists of values by setting, such as {train.network_dim: [8, 16], train.learning_rate: [1e-4, 2e-4]}: four
    experiments."""

    list: tuple[Values, ...] = ()
    """Sets of values that belong together, such as [{train.network_dim: 8, train.network_alpha: 4}]. An entry may have
    a `name` of its own."""

    seeds: tuple[Annotated[Seed, BeforeValidator(_no_bool)], ...] = ()
    """The same as `train.seed` in the grid: each training with each of these seeds, for a mean and its spread."""

    @property
    def is_empty(self) -> bool:
        return not (self.grid or self.list or self.seeds)


# -- all experiments of a config --------------------------------------------------------------------------------------


def named_experiments(experiments: Mapping[str, Values]) -> Iterator[Experiment]:
    """Yield those that `experiments` names."""
    for name, values in experiments.items():
        place = ("experiments", name)
        yield Experiment(name, tuple(_changes(values, place)), place)


def swept_experiments(sweep: SweepSettings) -> Iterator[Experiment]:
    """Yield those that a sweep makes: the first setting of the grid changes least often, the seed most often."""
    if sweep.is_empty:
        return
    names = _short_names(sweep)
    for combination in product(*_choices(sweep, names)):
        words = "_".join(part.words for part in combination if part.words)
        yield Experiment(_cut(words), tuple(chain.from_iterable(part.changes for part in combination)), ("sweep",))


def count_swept(sweep: SweepSettings) -> int:
    """Return how many experiments a sweep makes."""
    count = int(not sweep.is_empty)
    for choices in (*sweep.grid.values(), sweep.list, sweep.seeds):
        count *= len(choices) or 1
    return count


@dataclass(frozen=True)
class _Part:
    """One choice: a value of the grid, an entry of the list, or a seed."""

    words: str
    """What it adds to the experiment's name."""
    changes: tuple[OwnValue, ...]


def _choices(sweep: SweepSettings, names: Mapping[Location, str]) -> Iterator[list[_Part]]:
    for name, values in sweep.grid.items():
        place = (*GRID, name)
        yield [_part(location_of(name), value, (*place, number), names) for number, value in enumerate(values)]
    if sweep.list:
        yield [_entry(entry, ("sweep", "list", number), names) for number, entry in enumerate(sweep.list)]
    if sweep.seeds:
        yield [_part(SEED, seed, ("sweep", "seeds", number), names) for number, seed in enumerate(sweep.seeds)]


def _part(setting: Location, value: Json, place: Location, names: Mapping[Location, str]) -> _Part:
    return _Part(f"{names[setting]}-{_value_text(value)}", tuple(_leaves(setting, value, place)))


def _entry(entry: Values, place: Location, names: Mapping[Location, str]) -> _Part:
    changes = tuple(_changes({key: value for key, value in entry.items() if key != OWN_NAME}, place))
    own = entry.get(OWN_NAME)
    words = "_".join(f"{names[change.setting]}-{_value_text(change.value)}" for change in changes)
    return _Part(own if isinstance(own, str) else words, changes)


# -- values -----------------------------------------------------------------------------------------------------------


def location_of(setting: str) -> Location:
    """Return the location of a setting that is written as `train.seed` or `datasets[0].num_repeats`."""
    parts = re.findall(r"\[(\d+)\]|([^.\[\]]+)", setting)
    return tuple(int(number) if number else name for number, name in parts)


def _changes(values: Mapping[str, Json], place: Location) -> Iterator[OwnValue]:
    for name, value in values.items():
        yield from _leaves(location_of(name), value, (*place, name))


def _leaves(setting: Location, value: Json, place: Location) -> Iterator[OwnValue]:
    """Each value in a mapping is a change of its own, as on the command line; a list is one value."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves((*setting, key), inner, (*place, key))
    else:
        yield OwnValue(setting, value, place)


# -- names ------------------------------------------------------------------------------------------------------------


def _swept_settings(sweep: SweepSettings) -> dict[Location, None]:
    entries = ({key: value for key, value in entry.items() if key != OWN_NAME} for entry in sweep.list)
    listed = (change.setting for entry in entries for change in _changes(entry, ()))
    return dict.fromkeys([*map(location_of, sweep.grid), *listed, *([SEED] if sweep.seeds else [])])


def _short_names(sweep: SweepSettings) -> dict[Location, str]:
    """The last word of each setting; all of them where two settings end alike."""
    settings = _swept_settings(sweep)
    ends = [_last_word(setting) for setting in settings]
    return {
        setting: re.sub(r"[^\w.]+", "-", end if ends.count(end) == 1 else dotted(setting)).strip("-")
        for setting, end in zip(settings, ends, strict=True)
    }


def _last_word(setting: Location) -> str:
    return next((part for part in reversed(setting) if isinstance(part, str)), dotted(setting))


def _value_text(value: Json) -> str:
    """A value as a part of a file name, different for different values."""
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return _number_text(value)
    if isinstance(value, str):
        clean = _UNSUITED.sub("-", value.removesuffix(".safetensors")).strip("-.")[:30]
        return clean if clean == value else f"{clean}-{short(value)[:6]}".strip("-")
    if isinstance(value, list) and value and all(type(each) in (int, float) for each in value):
        return "x".join(_number_text(each) for each in value if isinstance(each, int | float))
    return short(value)[:8]


def _number_text(value: float) -> str:
    """A number in its shortest form: 3 for 3.0, 1e-5 for 1e-05."""
    return re.sub(r"e([-]?)[+]?0*", r"e\1", repr(value).removesuffix(".0"))


def _cut(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 9]}-{short(name)[:8]}"


# -- what can be read of a config that is wrong elsewhere -------------------------------------------------------------


def readable_parts(config: Mapping[str, Json]) -> tuple[dict[str, Values], SweepSettings]:
    """Return `experiments` and `sweep` of a config as it was read, without what is wrong in their form."""
    named, sweep = config.get("experiments"), _mapping(config.get("sweep"))
    experiments = {
        name: _mapping(values) for name, values in _mapping(named).items() if isinstance(values, dict | None)
    }
    parts: dict[str, Json] = {
        "grid": {name: values for name, values in _mapping(sweep.get("grid")).items() if isinstance(values, list)},
        "list": [values for values in _list(sweep.get("list")) if isinstance(values, dict)],
        "seeds": _list(sweep.get("seeds")),
    }
    for name, value in parts.items():
        try:
            SweepSettings.model_validate({name: value})
        except ValidationError:
            parts[name] = [] if isinstance(value, list) else {}
    return experiments, SweepSettings.model_validate(parts)


def _mapping(value: Json) -> dict[str, Json]:
    return value if isinstance(value, dict) else {}


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def samples_of_values(experiments: Mapping[str, Values], sweep: SweepSettings) -> Iterator[Experiment]:
    """Yield so few experiments that each value that is written is in one of them; none of far too many."""
    if len(experiments) + count_swept(sweep) > MOST:
        return
    seen = set[Location]()
    for each in chain(named_experiments(experiments), swept_experiments(sweep)):
        own = {change.place for change in each.changes}
        if own - seen:
            seen |= own
            yield each


# -- faults -----------------------------------------------------------------------------------------------------------


def experiment_conflicts(experiments: Mapping[str, Values], sweep: SweepSettings) -> Iterator[Conflict]:
    """Yield what is wrong with names and settings of experiments, whatever the values are."""
    found = [
        *chain.from_iterable(_wrong_settings(values, ("experiments", name)) for name, values in experiments.items()),
        *_wrong_sweep(sweep),
    ]
    yield from found
    many = len(experiments) + count_swept(sweep)
    if many > MOST:
        yield ("sweep" if count_swept(sweep) else "experiments",), f"makes {many:,} experiments, at most {MOST:,}"
        return
    is_swept = all(place[0] != "sweep" for place, _ in found)
    yield from _wrong_names([*named_experiments(experiments), *(swept_experiments(sweep) if is_swept else ())])


def _wrong_names(experiments: Iterable[Experiment]) -> Iterator[Conflict]:
    seen: dict[str, Experiment] = {}
    for each in experiments:
        if twice := _set_twice(each.changes):
            yield each.place, f"{twice} is set twice in one experiment: keep one of them"
        if not each.name and each.place == ("sweep",):
            yield each.place, "makes an experiment in which nothing differs: give that entry of the list a name"
        elif not _NAME.fullmatch(each.name) or len(each.name) > LONGEST:
            text = f"found the name '{each.name:.120}', expected at most {LONGEST} letters, digits and . _ + -"
            yield each.place, f"{text}, the first no sign and the last no dot (it becomes a folder)"
        elif is_result_name(each.name):
            yield each.place, f"'{each.name}' is the name of something else among the results: choose another"
        elif (first := seen.setdefault(each.name.lower(), each)) is not each:
            where = dotted(first.place)
            yield each.place, f"makes a second experiment called '{each.name}', besides that of {where}: name one anew"


def _set_twice(changes: Iterable[OwnValue]) -> str:
    """The first setting that has two values, or a value and another one inside; "" if none has."""
    seen = set[Location]()
    for change in changes:
        above = [change.setting[:depth] for depth in range(1, len(change.setting) + 1)]
        if any(each in seen for each in above) or any(each[: len(change.setting)] == change.setting for each in seen):
            return dotted(change.setting)
        seen.add(change.setting)
    return ""


def _wrong_settings(values: Mapping[str, Json], place: Location) -> Iterator[Conflict]:
    for name, value in values.items():
        if not _SETTING.fullmatch(name):
            yield (*place, name), f"found '{name:.60}', expected a setting such as train.learning_rate"
            continue
        location = location_of(name)
        if len(location) == 1 and value is None:
            yield (*place, name), "found nothing, expected the settings in it that differ"
        for change in _leaves(location, value, (*place, name)):
            for depth in range(1, len(change.setting) + 1):
                if why := FIXED.get(change.setting[:depth]):
                    yield change.place, f"{dotted(change.setting[:depth])} cannot differ between experiments: {why}"


def _wrong_sweep(sweep: SweepSettings) -> Iterator[Conflict]:
    for name, values in sweep.grid.items():
        if len(location_of(name)) == 1 and any(isinstance(value, dict) for value in values):
            text = "found a section, expected one setting; values that belong together are entries of sweep.list"
            yield (*GRID, name), text
        yield from islice(_wrong_settings({name: values[0]}, GRID), 1)
        yield from _doubled(values, (*GRID, name))
    yield from _doubled(sweep.seeds, ("sweep", "seeds"))
    for number, entry in enumerate(sweep.list):
        place = ("sweep", "list", number)
        if not isinstance(own := entry.get(OWN_NAME, ""), str):
            yield (*place, OWN_NAME), f"found {own!r:.60}, expected text (put it in quotes)"
        yield from _wrong_settings({key: value for key, value in entry.items() if key != OWN_NAME}, place)


def _doubled(values: Iterable[Json], place: Location) -> Iterator[Conflict]:
    seen: list[Json] = []
    for number, value in enumerate(values):
        if any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in seen):
            yield (*place, number), f"found {value!r:.60} twice, expected each value once"
        seen.append(value)
