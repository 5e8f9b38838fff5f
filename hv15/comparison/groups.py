"""Trainings that differ only in their seeds, with the mean and the spread of what was measured."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar

from hv15.comparison.settings import SEED, differing, in_words
from hv15.comparison.trainings import ComparedTraining
from hv15.records.json_values import Json, JsonObject

LONGEST_LABEL = 48
"""Characters of the settings that name a group; of a longer one, its trainings' names do."""
_SEED_IN_NAME = re.compile(r"_?(train\.)?seed-\d+")
_SAME_SIGMA = 1e-4
"""What the levels of two validations differ by at most if they are the same: records are rounded."""

Measured = TypeVar("Measured")


class Spread(NamedTuple):
    """Repeated measurements."""

    mean: float
    deviation: float | None
    """The standard deviation of the sample (n - 1 below the root); None of a single one."""
    repetitions: int


def spread(values: Iterable[float | None]) -> Spread | None:
    """Return mean and spread of the values that are there; None if none is."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Spread(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None, len(known))


@dataclass(frozen=True, eq=False)
class TrainingGroup:
    """Trainings with the same settings, apart from the seed."""

    label: str
    """The settings in which it differs from other groups, in words; the names of its trainings if that is too long."""
    settings: JsonObject
    """The settings in which groups differ, by dotted name."""
    trainings: tuple[ComparedTraining, ...]
    counted: tuple[ComparedTraining, ...]
    """Those whose numbers count in the means: see `TrainingComparison.counted`. Of each seed only one."""

    @property
    def seeds(self) -> int:
        """How many different trainings there are. One of the same seed is the same training, perhaps a copy."""
        return len(_of_each_seed(self.trainings))

    @property
    def validation(self) -> Spread | None:
        """Of the lowest validation loss of each training that counts."""
        return spread(each.best.loss if each.best else None for each in self.counted)

    @property
    def drawn(self) -> tuple[ComparedTraining, ...]:
        """Those whose mean is the group's curve: those that count or, if there are none, all as far as they are."""
        return self.counted or self.trainings

    @property
    def first(self) -> ComparedTraining:
        """The training that stands for the group where there is room for one: that with the lowest seed."""
        return min(self.drawn, key=lambda each: (each.seed is None, each.seed or 0))


@dataclass(frozen=True)
class TrainingComparison:
    """All trainings that are compared, in the order in which they were named."""

    trainings: tuple[ComparedTraining, ...]

    @cached_property
    def counted(self) -> tuple[ComparedTraining, ...]:
        """The trainings whose numbers count in means, and for the best: those that are finished, since a loss still
        falls. While none is finished, all count as far as they are."""
        finished = tuple(each for each in self.trainings if not each.is_unfinished)
        return finished if any(each.steps for each in finished) else self.trainings

    def counts(self, training: ComparedTraining) -> bool:
        """Return whether the numbers of a training count."""
        return training in self.counted

    @cached_property
    def differing(self) -> tuple[str, ...]:
        """The dotted names of the settings that differ, without the seed."""
        known = [each.settings for each in self.trainings if each.settings]
        return tuple(name for name in differing(known) if name != SEED)

    @cached_property
    def groups(self) -> tuple[TrainingGroup, ...]:
        """The groups, in the order of their first trainings. A training of unknown settings is a group of its own."""
        found: dict[str, list[ComparedTraining]] = {}
        for each in self.trainings:
            key = json.dumps([each.settings.get(name) for name in self.differing]) if each.settings else each.name
            found.setdefault(key, []).append(each)
        return tuple(self._group(each) for each in found.values())

    def _group(self, trainings: Sequence[ComparedTraining]) -> TrainingGroup:
        settings = {name: trainings[0].settings.get(name) for name in self.differing if trainings[0].settings}
        label = in_words(settings)
        if not 0 < len(label) <= LONGEST_LABEL:
            label = _label_of([each.name for each in trainings])
        counted = _of_each_seed(each for each in trainings if self.counts(each))
        return TrainingGroup(label, settings, tuple(trainings), counted)

    def group_of(self, training: ComparedTraining) -> TrainingGroup:
        """Return the group that a training belongs to."""
        return next(group for group in self.groups if training in group.trainings)

    @cached_property
    def has_repetitions(self) -> bool:
        """Whether any group has several seeds."""
        return any(group.seeds > 1 for group in self.groups)

    @cached_property
    def varied(self) -> str | None:
        """The one setting whose numbers distinguish all groups, as in an ablation; None if there is no such setting."""
        if len(self.differing) != 1 or len(self.groups) < 2:
            return None
        values: list[Json] = [group.settings.get(self.differing[0]) for group in self.groups]
        numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        return self.differing[0] if len(numbers) == len(values) else None

    # -- which one is the best ----------------------------------------------------------------------------------------

    @cached_property
    def is_comparable(self) -> bool:
        """Whether the validation losses of all trainings were measured in the same way, as far as they tell."""
        return self.has_same_levels and self.has_same_clips

    @cached_property
    def has_same_levels(self) -> bool:
        """Whether all were measured at the same noise levels."""
        sigmas = [each.last.sigmas for each in self.trainings if each.last is not None]
        if any(len(each) != len(sigmas[0]) for each in sigmas):
            return False
        return all(abs(a - b) <= _SAME_SIGMA for each in sigmas for a, b in zip(each, sigmas[0], strict=True))

    @cached_property
    def has_same_clips(self) -> bool:
        """Whether all were measured on the same clips: by content or, if a record does not tell it, by settings."""
        clips = {each.last.clips for each in self.trainings if each.last is not None}
        if "" in clips:
            return len(clips) <= 2 and not any(name.startswith(_HELD_OUT) for name in self.differing)
        return len(clips) <= 1

    @cached_property
    def compares_groups(self) -> bool:
        """Whether the validation losses of groups can be compared, and there are several."""
        return self.is_comparable and sum(group.validation is not None for group in self.groups) > 1

    @cached_property
    def best_group(self) -> TrainingGroup | None:
        """The group with the lowest mean of the lowest validation losses; None if they cannot be compared, or several
        are the lowest, as where none came below the loss of the base model."""
        found = [(group.validation.mean, group) for group in self.groups if group.validation is not None]
        best = _lowest(found) if self.compares_groups else []
        return best[0] if len(best) == 1 else None

    @cached_property
    def best_training(self) -> ComparedTraining | None:
        """The training with the lowest validation loss, of equal trainings the first; None as for the groups."""
        found = [(each.best.loss, each) for each in self.counted if each.best and each.best.loss is not None]
        best = _lowest(found) if len(found) > 1 and self.is_comparable else []
        return best[0] if len({(self.group_of(each), each.seed) for each in best}) == 1 else None

    @cached_property
    def unfinished(self) -> tuple[str, ...]:
        """The names of the trainings that have steps left."""
        return tuple(each.name for each in self.trainings if each.is_unfinished)

    @property
    def leaves_out(self) -> bool:
        """Whether there are trainings whose numbers do not count."""
        return len(self.counted) < len(self.trainings)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the numbers has to know, in sentences."""
        notes = []
        if not self.has_same_levels:
            notes.append(
                "The validation losses cannot be compared: the trainings were not measured at the same noise levels. "
                "train.validation.noise_levels: even measures all at the same levels."
            )
        if not self.has_same_clips:
            notes.append(
                "The validation losses cannot be compared: the trainings were not measured on the same clips. Clips "
                "that all hold out (train.validation.datasets) can be compared."
            )
        if self.unfinished and self.leaves_out:
            notes.append(f"Not finished, so in no mean, and not the best: {', '.join(self.unfinished)}.")
        elif self.unfinished:
            notes.append(f"None is finished, so the numbers are those so far: {', '.join(self.unfinished)}.")
        if unmeasured := [each.name for each in self.trainings if not each.steps]:
            notes.append(f"Nothing measured: {', '.join(unmeasured)}.")
        if len({each.device for each in self.trainings if each.device}) > 1:
            notes.append("They ran on different devices, so times and memory differ for that reason too.")
        return tuple(notes)


def _label_of(names: Sequence[str]) -> str:
    """What a group is called by the names of its trainings: what a sweep calls them without the seed, or all names."""
    without_seed = {_SEED_IN_NAME.sub("", name) for name in names}
    if len(names) > 1 and len(without_seed) == 1 and "" not in without_seed:
        return without_seed.pop()
    label = ", ".join(names)
    return label if len(label) <= LONGEST_LABEL else f"{names[0]} and {len(names) - 1} more"


def _lowest(found: Sequence[tuple[float, Measured]]) -> list[Measured]:
    """Those of the lowest number."""
    lowest = min(number for number, _ in found)
    return [each for number, each in found if math.isclose(number, lowest)]


def _of_each_seed(trainings: Iterable[ComparedTraining]) -> tuple[ComparedTraining, ...]:
    """The first training of each seed; all whose seed is not known."""
    seen = set[int]()
    found = []
    for each in trainings:
        if each.seed is None or each.seed not in seen:
            found.append(each)
        seen |= set() if each.seed is None else {each.seed}
    return tuple(found)


_HELD_OUT = ("train.validation.fraction", "train.validation.datasets", "train.validation.samples")
"""The settings of which clips are measured, and how many."""
