"""What is known of the training besides its curves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from hv15.records.metrics import QUANTILE_COUNT, ValidationRecord, WarningRecord
from hv15.terminal_text import visible
from tui.data.training_facts import Average, TrainingFacts
from tui.units import number

MOST_WARNINGS = 6
"""The last ones are shown."""
NAMES = 17
"""Columns of the names on the left."""


class TrainingDialog(ModalScreen[None]):
    """Shows the facts of one training."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,i", "dismiss(None)", "Close", id="training-close", tooltip="close it")
    ]

    def __init__(self, facts: TrainingFacts) -> None:
        super().__init__()
        self._facts = facts

    def compose(self) -> ComposeResult:
        box = VerticalScroll(Static(facts_text(self._facts)), classes="dialog -tall")
        box.border_title = Content(f"Training · {visible(self._facts.label)}")
        box.border_subtitle = "esc closes"
        yield box


def facts_text(facts: TrainingFacts) -> Content:
    """Return the facts as text: numbers in columns, one paragraph for each subject."""
    parts = [_standing(facts), _validation(facts), _average(facts.average)]
    if facts.segments:
        parts.append(_paragraph("Segments", [Content(visible(line)) for line in facts.segments]))
    if facts.warnings:
        shown = facts.warnings[-MOST_WARNINGS:]
        count = len(facts.warnings)
        title = "Warnings" if len(shown) == count else f"The last {len(shown)} of {count} warnings"
        parts.append(_paragraph(title, [_warning(each) for each in shown]))
    return Content("\n\n").join(parts)


def _standing(facts: TrainingFacts) -> Content:
    status = facts.status
    lines = [_row("steps", f"{status.step:,} of {status.total:,}" if status.total else f"{status.step:,}")]
    bad = f"{status.skipped:,}: their loss or gradient was not a number, so they changed nothing"
    lines.append(_row("skipped steps", bad if status.skipped else "none", "$warning" if status.skipped else ""))
    return Content("\n").join(lines)


def _validation(facts: TrainingFacts) -> Content:
    best = facts.best
    if not facts.validations or best is None:
        return _paragraph("Validation", [Content.styled("none so far (train.validation)", "$faint")])
    last = facts.validations[-1]
    lines = [
        _row("lowest loss", f"{number(best.loss)} after step {best.step:,}"),
        *([] if best is last else [_row("last loss", f"{number(last.loss)} after step {last.step:,}")]),
        Content(""),
        *_table(best, last),
    ]
    return _paragraph("Validation: the loss on clips that are not trained on", lines)


def _table(best: ValidationRecord, last: ValidationRecord) -> Iterator[Content]:
    """Both parts at the lowest and the last validation: in all, by task, and by noise level."""
    both = [best] if best is last else [best, last]
    yield _columns("", [f"step {each.step:,}" for each in both for _ in "12"], "$faint")
    yield _columns("", ["others", "trained"] * len(both), "$faint")
    yield _columns("all", [number(loss) for each in both for loss in (each.loss, each.trained_loss)])
    for name, field in (("text-to-video", "loss_t2v"), ("image-to-video", "loss_i2v")):
        found = [getattr(each, part + field) for each in both for part in ("", "trained_")]
        if any(value is not None and value == value for value in found):
            yield _columns(name, [number(value) for value in found])
    for level in range(QUANTILE_COUNT):
        rows = [row for each in both for row in (each.loss_by_quantile, each.trained_loss_by_quantile)]
        values = [number(row[level]) if level < len(row) else "" for row in rows]
        sigma = f", sigma {last.sigmas[level]:.2f}" if level < len(last.sigmas) else ""
        yield _columns(f"0.{level + 1}{sigma}", values)


def _average(average: Average | None) -> Content:
    if average is None:
        return _paragraph("Moving average", [Content.styled("off (train.ema_decay)", "$faint")])
    there = "" if average.is_there else " (made at the end)"
    previews = "show the average" if average.in_previews else "show the LoRA itself (train.preview_average)"
    lines = [
        _row("ema_decay", f"{average.decay:g}"),
        _row("file", f"{average.path.name}{there}"),
        _row("previews", previews),
    ]
    return _paragraph("Moving average", lines)


def _warning(record: WarningRecord) -> Content:
    return Content.assemble((f"step {record.step:,}: ", "$faint"), visible(record.message.replace("\n", " ")))


def _paragraph(title: str, lines: Sequence[Content]) -> Content:
    return Content("\n").join([Content.styled(title, "bold $accent"), *lines])


def _row(name: str, value: str, style: str = "") -> Content:
    return Content.assemble((f"{name:<{NAMES}} ", "$faint"), (visible(value), style))


def _columns(name: str, values: Sequence[str], style: str = "") -> Content:
    return Content.assemble((f"{name:<{NAMES}} ", "$faint"), ("".join(f"{value:>11}" for value in values), style))
