"""Samples: what the LoRA makes of the prompts, as a list or as a table, played in the terminal, two side by side."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from hv15.runs.followed_file import end_of
from hv15.runs.record import RunFolder
from hv15.terminal_text import clean
from tui.data.again import Again, AgainFields
from tui.data.jobs import JobState
from tui.data.lora_names import loras_of_project
from tui.data.sample_jobs import cells_of, shards_of
from tui.data.sample_matrix import SampleMatrix, by_lora, by_step
from tui.data.sample_relatives import neighbour, pair_of
from tui.data.samples import Sample, SamplesReader, cell_name
from tui.data.shard_progress import sample_at_work
from tui.dialogs.again import AgainDialog
from tui.messages import JobsSeen, SamplesSeen, SamplingSaid, ShardsSeen
from tui.screens.base import DashboardScreen
from tui.watcher import WatchedSource
from tui.widgets.rows import Rows
from tui.widgets.sample_facts import sample_facts
from tui.widgets.sample_list import SampleList, SampleRow, sample_rows, sample_title
from tui.widgets.sample_table import SampleTable
from tui.widgets.sampling_line import SamplingLine
from tui.widgets.still import StillDialog
from tui.widgets.video import Playable, Player

VIEWS = ("list", "steps", "LoRAs")
"""What t goes through."""
NONE_YET = (
    "no samples yet: a run makes those of sample.prompts in the config (s on the screen Run), and a training some on "
    "its way (train.preview_every_n_steps, or p on the screen Run)"
)


class SamplesScreen(DashboardScreen):
    """The list of samples beside the player."""

    NAME: ClassVar[str] = "samples"
    READS: ClassVar[frozenset[str]] = frozenset({"samples", "sampling", "shards"})
    FIRST: ClassVar[str] = "#samples"
    CSS_PATH = "samples.tcss"
    HELP = """What the training makes of the prompts: as a list, or (t) as a table of prompts and steps, or of prompts
    and LoRAs. space plays, left and right move by a frame, b keeps a sample as B beside the others on the same
    playhead, e shows a sample before and after super resolution, [ and ] go to the step before and after. a makes the
    sample again with another seed, strength or size. v shows one frame as large as the terminal can, c copies the path
    of the file. p publishes the LoRA of the step that is shown, or the last one again: it writes train.publish_step
    into the config, and the next run makes what follows from it."""
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
        Binding(
            "e",
            "before_and_after",
            "Before and after",
            id="samples-enlarged",
            show=False,
            tooltip="this sample before and after super resolution",
        ),
        Binding("t", "view", "Table", id="samples-view", tooltip="a list, a table of steps, a table of LoRAs"),
        Binding("a", "again", "Again", id="samples-again", tooltip="make this sample again with other settings"),
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
        self._asked: dict[str, bool] = {}
        self._enlarged: frozenset[str] = frozenset()
        self._trains = True
        self._pinned: Sample | None = None
        self._view_number = 0
        """Which of VIEWS is shown."""
        self._expected: str | None = None
        """The run whose samples are shown as soon as they are there."""
        self._sampling: Path | None = None
        """The log of the command that samples again, while it runs."""
        self._shards: tuple[str, ...] = ()
        """The jobs that make several samples now."""
        self._jobs_at_work: frozenset[str] = frozenset()
        self._in_shards: frozenset[str] = frozenset()
        """The samples that are being made: by jobs of their own, and by those of shards."""

    def body(self) -> Iterable[Widget]:
        yield SamplingLine(id="sampling")
        with Horizontal(id="samples-columns"):
            yield SampleList(id="samples").add_class("pane")
            with Vertical(id="samples-table-side"):
                yield SampleTable(id="samples-table", classes="pane")
                yield Static(id="table-facts")
            with Vertical(id="samples-right-side"):
                yield Player(id="player")
                yield Static(id="sample-facts")

    def on_mount(self) -> None:
        self.query_one("#samples").border_title = "Samples"
        self.query_one(Player).nothing = self.query_one(SampleTable).empty = NONE_YET
        reader = self._reader = SamplesReader(self.dashboard.files.config)

        def read() -> tuple[tuple[Sample, ...], dict[str, bool], frozenset[str], bool] | None:
            return (reader.samples, reader.asked, reader.enlarged, reader.trains) if reader.refresh() else None

        sources = self.dashboard.watcher.sources
        sources["samples"] = WatchedSource(
            "samples", read, lambda found: SamplesSeen(*found), interval_s=2.0, share=0.01
        )
        sources["shards"] = WatchedSource("shards", self._read_shards, ShardsSeen, share=0.02)
        sources["sampling"] = WatchedSource("sampling", self._read_sampling, SamplingSaid, share=0.02)
        self.query_one(Player).load()

    # What is seen

    def on_samples_seen(self, message: SamplesSeen) -> None:
        before = {sample.path: (sample.mtime, sample.size) for sample in self._samples}
        self._samples, self._asked, self._enlarged = message.samples, message.asked, message.enlarged
        self._trains = message.trains
        if self._pinned is not None:
            pinned = self._pinned.path
            self._pinned = next((sample for sample in message.samples if sample.path == pinned), None)
        self._list()
        self._show_new({each.path for each in self._samples} - before.keys())
        self._show()
        shown = {clip.path for clip in self.query_one(Player).clips}
        changed = {each.path for each in self._samples if before.get(each.path) not in (None, (each.mtime, each.size))}
        if shown & changed:
            self.query_one(Player).reload()

    def _list(self) -> None:
        """Show the samples in the list and in the table."""
        entries = self.query_one(SampleList)
        entries.set_rows(sample_rows(self._samples, self._pinned))
        entries.border_subtitle = str(len(self._samples))
        table = self.query_one(SampleTable)
        table.pinned = self._pinned.path if self._pinned is not None else None
        table.show(self._grid())

    def _grid(self) -> SampleMatrix:
        if VIEWS[self._view_number] == "LoRAs":
            return by_lora(self._samples, self._asked, self.dashboard.files.root, trains=self._trains)
        return by_step(self._samples, self._asked, self._enlarged)

    def on_jobs_seen(self, message: JobsSeen) -> None:
        view = message.view
        line = self.query_one(SamplingLine)
        if line.show_jobs(view):
            self.dashboard.watcher.refresh("samples")
        self._sampling = self.dashboard.files.root / line.log_file if line.log_file else None
        table = self.query_one(SampleTable)
        running = [each for each in view.jobs if each.state is JobState.RUNNING]
        self._shards = shards_of(running)
        self._jobs_at_work = cells_of(running)
        table.waiting = cells_of(each for each in view.jobs if each.state is JobState.WAITING)
        self._show_work()

    def _read_shards(self) -> frozenset[str]:
        """Read which of their samples the jobs of shards make now."""
        root = self.dashboard.files.root
        found = (sample_at_work(root, shard) for shard in self._shards)
        return frozenset(cell_name(name) for name in found if name is not None)

    def on_shards_seen(self, message: ShardsSeen) -> None:
        self._in_shards = message.names
        self._show_work()

    def _show_work(self) -> None:
        table = self.query_one(SampleTable)
        table.at_work = self._jobs_at_work | (self._in_shards if self._shards else frozenset())
        table.refresh()

    def _read_sampling(self) -> str | None:
        """Read the last line that the command has printed."""
        log = self._sampling
        data, _ = end_of(log, 4096) if log is not None else (b"", True)
        lines = [line for line in data.splitlines() if line.strip()]
        return clean(lines[-1]) if lines else None

    def on_sampling_said(self, message: SamplingSaid) -> None:
        self.query_one(SamplingLine).say(message.line)

    @property
    def _current(self) -> Sample | None:
        if self._view_number:
            return self.query_one(SampleTable).sample
        row = self.query_one(SampleList).current
        return row.sample if row is not None else None

    def _go_to(self, sample: Sample) -> None:
        """Put the cursor of the list and of the table on a sample."""
        self.query_one(SampleList).move_to_key(sample.path)
        self.query_one(SampleTable).go_to(sample.path)

    @on(Rows.Moved, "#samples")
    def _moved(self, message: Rows.Moved) -> None:
        if isinstance(message.row, SampleRow) and not self._view_number:
            self._show()

    @on(SampleTable.Moved)
    def _table_moved(self) -> None:
        if self._view_number:
            self._show()

    @on(Rows.Chosen, "#samples")
    def _chosen(self) -> None:
        self.action_player("play")

    @on(SampleTable.Opened)
    def _opened(self) -> None:
        """Play the sample of a cell: where there is no room for both, instead of the table."""
        self.add_class("-open")
        player = self.query_one(Player)
        player.focus()
        player.action_play()

    def _show(self) -> None:
        """Play the sample under the cursor, with B beside it."""
        current = self._current
        shown = [current] if current is not None else []
        if self._pinned is not None and current is not None and self._pinned.path != current.path:
            shown.append(self._pinned)
        names = ("A · ", "B · ") if len(shown) == 2 else ("",)
        clips = [Playable(each.path, f"{name}{sample_title(each)}") for name, each in zip(names, shown, strict=False)]
        self.query_one(Player).load(*clips)
        facts = sample_facts(current, self.dashboard.files.root) if current else Content("")
        self.say("#sample-facts", facts)
        self.say("#table-facts", facts)

    # The list and the tables

    def action_view(self) -> None:
        """Show the next of list, table of steps and table of LoRAs, on the same sample."""
        self._turn_to((self._view_number + 1) % len(VIEWS))

    def _turn_to(self, view: int) -> None:
        current, self._view_number = self._current, view
        self.set_class(self._view_number > 0, "-table")
        self.remove_class("-open")
        self.query_one("#samples-table").border_title = f"Samples: prompts and {VIEWS[self._view_number]}"
        self._list()
        if current is not None:
            self._go_to(current)
        self.query_one("#samples-table" if self._view_number else "#samples").focus()
        self._show()

    def action_leave_field(self) -> None:
        """Go back from the player to the table."""
        if self._view_number:
            self.query_one(Player).pause()
            self.remove_class("-open")
            self.query_one(SampleTable).focus()
        else:
            super().action_leave_field()

    # The player, and A beside B

    def action_player(self, action: str, *arguments: int) -> None:
        getattr(self.query_one(Player), f"action_{action}")(*arguments)

    def action_compare(self) -> None:
        current = self._current
        same = current is not None and self._pinned is not None and self._pinned.path == current.path
        self._pinned = None if same else current
        self._list()
        self._show()
        if self._pinned is not None:
            self.notify("B stays on the right: move to another sample to compare; b again ends it", markup=False)

    def action_before_and_after(self) -> None:
        """Show a sample with its larger version as B; once more ends it."""
        current = self._current
        pair = pair_of(self._samples, current) if current is not None else None
        if pair is None:
            self.notify("move to a sample that super resolution has made larger (sample.sr)", markup=False)
            return
        small, large = pair
        is_shown = self._pinned is not None and self._pinned.path == large.path
        self._pinned = None if is_shown else large
        self._list()
        self._go_to(small)
        self._show()

    def action_move_step(self, direction: int) -> None:
        """Go to the neighbouring step of both samples' prompts."""
        current = self._current
        if self._pinned is not None and (moved := neighbour(self._samples, self._pinned, direction)) is not None:
            self._pinned = moved
            self._list()
        if current is not None and (moved := neighbour(self._samples, current, direction)) is not None:
            self._go_to(moved)
        self._show()

    def action_still(self) -> None:
        current = self._current
        if current is not None:
            player = self.query_one(Player)
            player.pause()
            self.app.push_screen(StillDialog(current.path, player.index, sample_title(current)))

    # Again, with other settings

    def action_again(self) -> None:
        """Ask for other settings of this sample, and make it with them."""
        current, config = self._current, self.dashboard.files.config
        if current is not None and current.kind == "enlarged":
            current, _ = pair_of(self._samples, current) or (None, None)
        if current is None or not current.settings.prompt:
            self.notify("move to a sample that says what it was made from", markup=False)
            return

        def asked(again: Again) -> None:
            self.app.push_screen(AgainDialog(again), lambda typed: self._make_again(again, typed))

        self.in_thread("again", lambda: Again(current, config, loras_of_project(config.parent)), asked)

    def _make_again(self, again: Again, typed: AgainFields | None) -> None:
        if typed is None:
            return

        def started(run: RunFolder) -> None:
            self._expected = run.id
            self.notify("it is being made: x on the screen Run stops it", markup=False)
            self.dashboard.watcher.refresh("run", "jobs")

        self.in_thread("make-again", lambda: again.start(typed), started)

    def _show_new(self, new: set[Path]) -> None:
        """Move to a sample that was asked for here and has just appeared."""
        made = [each for each in self._samples if each.path in new and each.kind == "again"]
        if self._expected is not None and made:
            self._expected = None
            if VIEWS[self._view_number] == "steps":  # that table has none of them
                self._turn_to(VIEWS.index("LoRAs"))
            self._go_to(max(made, key=lambda each: each.mtime))

    # The LoRA and the file of a sample

    def action_pick(self) -> None:
        """Write into the config that the LoRA of this sample's step is published."""
        current, config = self._current, self.dashboard.files.config
        if current is None or current.kind in ("base", "enlarged", "again"):
            self.notify("move to a sample of a step, or to a final one", markup=False)
            return
        step, experiment = current.step, current.experiment

        def pick() -> str:
            from hv15.commands.checkpoints import FINAL, choose

            return choose(config, FINAL if step is None else str(step), experiment)

        self.in_thread("pick", pick, self._picked)

    def _picked(self, words: str) -> None:
        self.notify(f"{words}: start a run, which makes what follows from it", markup=False)

    def action_copy(self) -> None:
        current = self._current
        if current is not None:
            self.app.copy_to_clipboard(str(current.path))
            self.notify(str(current.path), title="Copied", markup=False)
