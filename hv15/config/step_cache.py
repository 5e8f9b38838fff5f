"""The settings of `sample:` for steps that reuse what the transformer's blocks gave in earlier ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, PositiveFloat

from hv15.choices import StepCacheRule
from hv15.config.section import Conflict, Few, Part, Section, only_with

_PLANNED = only_with(rule=("deepcache", "teacache", "taylorcache"))
"""Settings of the rules whose steps are chosen beforehand."""


class StepCacheSettings(Section):
    """Faster sampling with a small error: some steps do not compute the transformer's blocks, see docs/sampling.md."""

    rule: Literal["none", StepCacheRule] = "none"
    """`none`: every step computes everything. `deepcache`, `teacache`, `taylorcache`: the official program's rules, in
    which the steps are chosen beforehand. `adaptive`: a step is computed when the input has changed by more than
    `threshold` since the last that was; at equal work it has the smallest error on the demo's model."""

    start: Part = Field(0.22, json_schema_extra=_PLANNED)
    """This part of the steps at the beginning is always computed: 11 of 50."""

    end: Part = Field(0.9, json_schema_extra=_PLANNED)
    """The steps from here on are always computed: the last 5 of 50, and at least the last."""

    interval: Few = Field(4, json_schema_extra=_PLANNED)
    """Between them, every so many steps one is computed."""

    threshold: PositiveFloat = Field(0.1, json_schema_extra=only_with(rule=("adaptive",)))
    """How much the input may change: larger is faster, with a larger error."""

    def conflicts(self) -> Iterator[Conflict]:
        yield from super().conflicts()
        if self.start > self.end:
            yield ("end",), f"is before start {self.start:g}: give a later one"
