"""The steps of a training in which a dataset takes part (`start_step`, `end_step`)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple


class Span(NamedTuple):
    """The steps after the first `start` ones, up to the one with number `end`; None: without an end."""

    start: int = 0
    end: int | None = None

    def has(self, step: int) -> bool:
        """Whether the step that follows on `step` finished ones is one of them."""
        return self.start <= step and (self.end is None or step < self.end)

    def __str__(self) -> str:
        return f"in steps {self.start + 1} to {self.end}" if self.end is not None else f"from step {self.start + 1} on"


WHOLE = Span()


def parts(spans: Iterable[Span]) -> list[Span]:
    """Divide a training where one of the spans begins or ends; the last part has no end."""
    edges = sorted({0, *(edge for span in spans for edge in span if edge is not None)})
    return [*(Span(start, end) for start, end in pairwise(edges)), Span(edges[-1])]
