"""The samples of a project by prompt and step, one line each."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from textual.content import Content

from hv15.terminal_text import visible
from tui.data.sample_standing import SampleStanding
from tui.data.samples import Sample
from tui.widgets.rows import Rows, cell


@dataclass(frozen=True)
class SampleRow:
    """A sample in the list."""

    sample: Sample
    first: bool
    """Whether it is the first of its prompt, whose name is in this line."""
    letter: str = ""
    """B if it is shown beside the one under the cursor."""


def sample_rows(samples: Sequence[Sample], pinned: Sample | None) -> list[SampleRow]:
    """Return the rows for samples, which are ordered by prompt."""
    rows: list[SampleRow] = []
    for sample in samples:
        first = not rows or rows[-1].sample.prompt_name != sample.prompt_name
        same = pinned is not None and pinned.path == sample.path
        rows.append(SampleRow(sample, first, "B" if same else ""))
    return rows


_OUTDATED = {
    SampleStanding.EARLIER_TRAINING: ("earlier", "of an earlier training"),
    SampleStanding.EARLIER_PROMPT: ("edited", "of an earlier prompt"),
    SampleStanding.NOT_IN_CONFIG: ("removed", "no longer in the config"),
}
"""For samples that do not belong to the project as it is now: the word in the list, the words above the picture."""


def step_words(sample: Sample) -> str:
    """Which state of the LoRA a sample shows, in a word or two."""
    if sample.step is not None:
        return f"step {sample.step:,}"
    if sample.standing in _OUTDATED:
        return _OUTDATED[sample.standing][0]
    return sample.column or sample.kind


def standing_words(sample: Sample) -> str:
    """Why a sample does not belong to the project as it is now; "" if it does."""
    return _OUTDATED[sample.standing][1] if sample.standing in _OUTDATED else ""


def standing_word(sample: Sample) -> str:
    """The same in a word, for a list."""
    return _OUTDATED[sample.standing][0] if sample.standing in _OUTDATED else ""


def sample_title(sample: Sample) -> str:
    """The title above a sample's picture."""
    step = "base" if sample.kind == "base" else step_words(sample) if sample.step is not None else ""
    checkpoint = sample.kind if sample.kind in ("checkpoint", "enlarged") else ""
    again = f"again, seed {sample.settings.seed}" if sample.kind == "again" else ""
    average = "average" if sample.ema_decay is not None else ""
    state = (
        " · ".join(filter(None, (sample.column, step, checkpoint, again, average, standing_words(sample)))) or "final"
    )
    of = f" · {sample.experiment}" if sample.experiment else ""
    return visible(f"{sample.prompt_name} · {state}{of}")


class SampleList(Rows[SampleRow]):
    """Chooses the sample to play."""

    PART_NAME = "Samples"
    HELP = """Samples by prompt, those of a training's steps before the final ones. Moving here shows a sample; b keeps
    the one under the cursor on the right as B, to compare others with it. "earlier": of an earlier training; "edited":
    its prompt has changed; "removed": its prompt is no longer in the config."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.empty = "no samples yet"

    def key(self, row: SampleRow) -> Hashable:
        return row.sample.path

    def draw(self, row: SampleRow, width: int) -> Content:
        sample, narrow = row.sample, width < 30
        step = 8 if narrow else 12
        state = step_words(sample).removeprefix("step " if narrow else "")
        name = max(6, width - step - 3)
        words = sample.prompt_name if row.first else f"  {sample.experiment}" if sample.experiment else ""
        return Content.assemble(
            (f"{row.letter or ' '} ", "bold $accent"),
            cell(words, name, "" if row.first else "$faint"),
            cell(state, step, "$faint" if sample.step is not None or standing_words(sample) else "", right=True),
        )
