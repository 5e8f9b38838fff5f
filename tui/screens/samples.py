"""Samples: what the LoRA makes, by prompt and step, played in the terminal, two side by side if wanted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static

from hv15.terminal_text import clean, visible
from tui.data.samples import Sample, SamplesReader
from tui.screens.base import DashboardScreen
from tui.units import size
from tui.watcher import WatchedSource
from tui.widgets.rows import Rows
from tui.widgets.sample_list import SampleList, SampleRow, sample_rows, sample_title, standing_words
from tui.widgets.still import StillDialog
from tui.widgets.video import Playable, Player


@dataclass
class SamplesSeen(Message):
    """A sample appeared, changed or was removed."""

    samples: tuple[Sample, ...]


class SamplesScreen(DashboardScreen):
    """The list of samples beside the player."""

    NAME: ClassVar[str] = "samples"
    READS: ClassVar[frozenset[str]] = frozenset({"samples"})
    FIRST: ClassVar[str] = "#samples"
    CSS_PATH = "samples.tcss"
    HELP = """What the training makes of the prompts. space plays, left and right move by a frame, b keeps a sample as B
    beside the others on the same playhead, [ and ] go to the step before and after. v shows one frame as large as the
    terminal can, c copies the path of the file. p publishes the LoRA of the step that is shown, or the last one again:
    it writes train.publish_step into the config, and the next run makes what follows from it."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "player('play')", "Play", id="samples-play", tooltip="play or pause"),
        Binding("left", "player('step', -1)", "Frame back", id="samples-left", show=False, tooltip="the frame before"),
        Binding("right", "player('step', 1)", "Frame on", id="samples-right", show=False, tooltip="the next frame"),
        Binding("b", "compare", "Compare", id="samples-compare", tooltip="keep this sample as B, on the same playhead"),
        Binding(
            "left_square_bracket",
            "move_step(-1)",
            "Step before",
            id="samples-before",
            show=False,
            tooltip="the sample of the step before",
        ),
        Binding(
            "right_square_bracket",
            "move_step(1)",
            "Step after",
            id="samples-after",
            show=False,
            tooltip="the sample of the step after",
        ),
        Binding("v", "still", "View still", id="samples-still", tooltip="one frame, as large as the terminal can"),
        Binding("c", "copy", "Copy path", id="samples-copy", tooltip="copy the path of the file"),
        Binding(
            "p", "pick", "Publish step", id="samples-pick", show=False, tooltip="publish the LoRA of this sample's step"
        ),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._reader: SamplesReader | None = None
        self._samples: tuple[Sample, ...] = ()
        self._pinned: Sample | None = None

    def body(self) -> Iterable[Widget]:
        with Horizontal(id="samples-columns"):
            yield SampleList(id="samples").add_class("pane")
            with Vertical(id="samples-right-side"):
                yield Player(id="player")
                yield Static(id="sample-facts")

    def on_mount(self) -> None:
        self.query_one("#samples").border_title = "Samples"
        reader = self._reader = SamplesReader(self.dashboard.files.config)

        def read() -> tuple[Sample, ...] | None:
            return reader.samples if reader.refresh() else None

        self.dashboard.watcher.sources["samples"] = WatchedSource(
            "samples", read, SamplesSeen, interval_s=2.0, share=0.01
        )
        self.query_one(Player).load()

    def on_samples_seen(self, message: SamplesSeen) -> None:
        before = {sample.path: (sample.mtime, sample.size) for sample in self._samples}
        self._samples = message.samples
        if self._pinned is not None:
            pinned = self._pinned.path
            self._pinned = next((sample for sample in message.samples if sample.path == pinned), None)
        entries = self.query_one(SampleList)
        entries.set_rows(sample_rows(self._samples, self._pinned))
        entries.border_subtitle = str(len(self._samples))
        self._show()
        shown = {clip.path for clip in self.query_one(Player).clips}
        changed = {each.path for each in self._samples if before.get(each.path) not in (None, (each.mtime, each.size))}
        if shown & changed:
            self.query_one(Player).reload()

    @property
    def _current(self) -> Sample | None:
        row = self.query_one(SampleList).current
        return row.sample if row is not None else None

    @on(Rows.Moved, "#samples")
    def _moved(self, message: Rows.Moved) -> None:
        if isinstance(message.row, SampleRow):
            self._show()

    @on(Rows.Chosen, "#samples")
    def _chosen(self) -> None:
        self.action_player("play")

    def _show(self) -> None:
        """Play the sample under the cursor, with B beside it."""
        current = self._current
        shown = [current] if current is not None else []
        if self._pinned is not None and current is not None and self._pinned.path != current.path:
            shown.append(self._pinned)
        names = ("A · ", "B · ") if len(shown) == 2 else ("",)
        clips = [Playable(each.path, f"{name}{sample_title(each)}") for name, each in zip(names, shown, strict=False)]
        self.query_one(Player).load(*clips)
        self.say("#sample-facts", self._facts(current) if current else "")

    def _facts(self, sample: Sample) -> Content:
        root = self.dashboard.files.root
        path = sample.path.relative_to(root) if sample.path.is_relative_to(root) else sample.path
        settings = sample.settings
        named = (
            ("seed", settings.seed),
            ("steps", settings.steps),
            ("guidance", settings.guidance_scale),
            ("shift", settings.flow_shift),
        )
        facts = [f"{name} {value}" for name, value in named if value is not None]
        facts += [f"with the moving average ({sample.ema_decay:g})"] if sample.ema_decay is not None else []
        texts = (("prompt ", settings.prompt), ("not    ", settings.negative_prompt))
        lines = [Content.assemble((name, "$faint"), clean(text.replace("\n", " "))) for name, text in texts if text]
        if words := standing_words(sample):
            lines.insert(0, Content.styled(words, "$warning"))
        lines.append(Content.styled(visible(str(path)), "$faint"))
        lines.append(Content.styled(" · ".join([*facts, size(sample.size)]), "$faint"))
        return Content("\n").join(lines)

    def action_player(self, action: str, *arguments: int) -> None:
        getattr(self.query_one(Player), f"action_{action}")(*arguments)

    def action_compare(self) -> None:
        current = self._current
        same = current is not None and self._pinned is not None and self._pinned.path == current.path
        self._pinned = None if same else current
        self.query_one(SampleList).set_rows(sample_rows(self._samples, self._pinned))
        self._show()
        if self._pinned is not None:
            self.notify("B stays on the right: move to another sample to compare; b again ends it", markup=False)

    def action_move_step(self, direction: int) -> None:
        """Go to the neighbouring step of both samples' prompts."""
        current = self._current
        if self._pinned is not None and (moved := self._neighbour(self._pinned, direction)) is not None:
            self._pinned = moved
            self.query_one(SampleList).set_rows(sample_rows(self._samples, self._pinned))
        if current is not None and (moved := self._neighbour(current, direction)) is not None:
            self.query_one(SampleList).move_to_key(moved.path)
        self._show()

    def _neighbour(self, sample: Sample, direction: int) -> Sample | None:
        of_prompt = [
            each
            for each in self._samples
            if (each.prompt_name, each.experiment) == (sample.prompt_name, sample.experiment)
        ]
        index = next((number for number, each in enumerate(of_prompt) if each.path == sample.path), -1) + direction
        return of_prompt[index] if 0 <= index < len(of_prompt) else None

    def action_still(self) -> None:
        current = self._current
        if current is not None:
            player = self.query_one(Player)
            player.pause()
            self.app.push_screen(StillDialog(current.path, player.index, sample_title(current)))

    def action_pick(self) -> None:
        """Write into the config that the LoRA of this sample's step is published."""
        current, config = self._current, self.dashboard.files.config
        if current is None or current.kind == "base" or current.experiment:
            self.notify("move to a sample of a step, or to a final one", markup=False)
            return
        step = current.step

        def pick() -> str:
            from hv15.commands.checkpoints import FINAL, choose

            return choose(config, FINAL if step is None else str(step))

        self.in_thread("pick", pick, self._picked)

    def _picked(self, words: str) -> None:
        self.notify(f"{words}: start a run, which makes what follows from it", markup=False)

    def action_copy(self) -> None:
        current = self._current
        if current is not None:
            self.app.copy_to_clipboard(str(current.path))
            self.notify(str(current.path), title="Copied", markup=False)
