"""The parts of a training in which the same datasets take part."""

from __future__ import annotations

from hv15.spans import WHOLE, Span, parts


def test_a_training_without_begins_and_ends_has_one_part() -> None:
    assert parts([]) == parts([WHOLE]) == parts([WHOLE, WHOLE]) == [WHOLE]


def test_each_begin_and_end_divides_it() -> None:
    found = parts([WHOLE, Span(0, 10), Span(5, 20), Span(10, None), Span(5, 20)])
    assert found == [Span(0, 5), Span(5, 10), Span(10, 20), Span(20)]


def test_steps_are_counted_from_one() -> None:
    span = Span(5, 7)
    assert [step + 1 for step in range(10) if span.has(step)] == [6, 7]
    assert str(span) == "in steps 6 to 7"
    assert (str(Span(5)), Span(5).has(10**6)) == ("from step 6 on", True)
