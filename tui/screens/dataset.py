"""Dataset: the clips with their captions and buckets; captions are edited in place."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, Static, TextArea

from hv15.config.load import load_config
from hv15.terminal_text import original, visible
from tui.data.dataset import DatasetReader, Item, Overview, write_caption
from tui.data.rerun import DryRun, Rerun
from tui.screens.base import DashboardScreen
from tui.units import bar
from tui.widgets.clip_list import ClipList, item_key
from tui.widgets.rows import Rows
from tui.widgets.thumbnails import Thumbnails
from tui.widgets.video import Playable, Player

REDRAW_S = 0.5
"""How often the list is drawn again while files are probed."""


@dataclass(frozen=True)
class Draft:
    """A caption that is being edited."""

    text: str
    before: str
    """The caption in its file when the edit began."""


class DatasetScreen(DashboardScreen):
    """The list of clips, the one under the cursor with its caption, and the buckets."""

    NAME: ClassVar[str] = "dataset"
    FIRST: ClassVar[str] = "#clips"
    CSS_PATH = "dataset.tcss"
    HELP = """The datasets of this project. enter edits the caption of a clip, ctrl+s saves it and says what will run
    again, esc leaves it; / shows only clips with certain words in name or caption; space plays the clip."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "play", "Play", id="dataset-play", tooltip="play the clip"),
        Binding("e", "edit", "Edit caption", id="dataset-edit", tooltip="edit the caption; ctrl+s saves"),
        Binding("ctrl+s", "save", "Save caption", id="dataset-save", tooltip="save the caption"),
        Binding("slash", "ask", "Filter", id="dataset-filter", key_display="/", tooltip="clips with these words"),
        Binding("r", "reload", "Read again", id="dataset-reload", show=False, tooltip="look for clips again"),
        Binding("escape", "back", "Back", id="dataset-back", show=False, tooltip="leave the caption or the filter"),
        Binding("c", "copy", "Copy path", id="dataset-copy", show=False, tooltip="copy the path of the clip"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._reader: DatasetReader | None = None
        self._items: list[Item] = []
        self._drafts: dict[Hashable, Draft] = {}
        """Edited captions that are not saved."""
        self._loaded: tuple[str, Draft | None] = ("", None)
        """The field's text before a person edited it, and the draft that it showed."""
        self._saved_last: Hashable = None
        self._words = ""
        self._shown: Item | None = None
        self._cancel = threading.Event()
        self._plan: DryRun | None = None

    @property
    def unsaved(self) -> str:
        count = len(self._drafts)
        return f"{count} caption{'s' if count > 1 else ''}" if count else ""

    def body(self) -> Iterable[Widget]:
        with Horizontal(id="dataset-top"):
            with Vertical(id="dataset-left"):
                yield Input(id="dataset-words", placeholder="words of a name or a caption", compact=True)
                yield ClipList(id="clips").add_class("pane")
            with Vertical(id="dataset-right"):
                yield Player(id="preview")
                yield TextArea(id="caption", soft_wrap=True, tab_behavior="focus", classes="pane")
                yield Static(id="caption-note")
        with Horizontal(id="dataset-bottom"):
            yield Thumbnails(id="thumbnails").add_class("pane")
            yield Static(id="buckets", classes="pane")

    def on_mount(self) -> None:
        self.query_one("#clips").border_title = "Clips"
        self.query_one("#caption").border_title = "Caption"
        self.query_one("#buckets").border_title = "Buckets"
        self.query_one("#thumbnails").border_title = "Around it"
        self.query_one(Player).load()

    def on_screen_resume(self) -> None:
        self.action_reload()

    def on_screen_suspend(self) -> None:
        self._cancel.set()
        self.query_one(Player).pause()

    def on_unmount(self) -> None:
        if self._plan is not None:
            self._plan.cancel()

    # Reading

    def action_reload(self) -> None:
        """Read the config and look for clips, then into each of them."""
        self._cancel.set()
        cancel = self._cancel = threading.Event()
        config, root, earlier = self.dashboard.config_file, self.dashboard.files.root, self._reader

        def load() -> DatasetReader:
            reader = DatasetReader(load_config(config), root)
            if earlier is not None:
                reader.remember(earlier)
            reader.load()
            return reader

        self.in_thread("load", load, lambda reader: self._take(reader, cancel), self._failed)

    def _failed(self, error: Exception) -> None:
        clips = self.query_one(ClipList)
        clips.set_rows([])
        clips.empty = visible(str(getattr(error, "message", error)).partition("\n")[0])

    def _take(self, reader: DatasetReader, cancel: threading.Event) -> None:
        self._reader = reader
        self.query_one(ClipList).empty = visible(reader.error) or "no clips: see datasets in the config"
        self._filter()
        self.run_worker(self._probe(reader, cancel), group="probe", exclusive=True, exit_on_error=False)

    async def _probe(self, reader: DatasetReader, cancel: threading.Event) -> None:
        """Probe the files in a thread, and show the progress now and then."""
        probe = iter(reader.probe(cancel))

        def some() -> bool:
            until = time.monotonic() + REDRAW_S
            return any(time.monotonic() > until or cancel.is_set() for _ in probe)

        more = True
        while more and not cancel.is_set():
            more = await asyncio.to_thread(some)
            words = self._words
            overview = await asyncio.to_thread(reader.overview, words)
            if self._reader is reader and self._words == words:
                self._show(reader, overview)

    def _filter(self) -> None:
        """Show the items that match, and what is known of all."""
        reader, words = self._reader, self._words
        if reader is not None:
            self.in_thread("filter", lambda: reader.overview(words), lambda found: self._show(reader, found))

    def _show(self, reader: DatasetReader, found: Overview) -> None:
        self._items = found.items
        clips = self.query_one(ClipList)
        clips.edited = set(self._drafts)
        clips.set_rows(self._items)
        parts = [f"{len(found.items)} of {found.count}" if self._words else f"{found.count}"]
        parts += [f"{found.captions} captions"] + ([f"{found.masks} masks"] if found.masks else [])
        parts += [f"! {found.bad}"] if found.bad else []
        clips.border_subtitle = " · ".join(parts)
        self.say("#buckets", bucket_text(found.buckets, reader.problems))
        self._show_item()

    # One clip

    @on(Rows.Moved, "#clips")
    def _moved(self) -> None:
        self._show_item()

    @on(Rows.Chosen, "#clips")
    def action_edit(self) -> None:
        if self._shown is not None:
            self.query_one("#caption").focus()

    @on(Thumbnails.Clicked)
    def _clicked(self, message: Thumbnails.Clicked) -> None:
        self.query_one(ClipList).cursor = message.index

    def _show_item(self) -> None:
        clips = self.query_one(ClipList)
        item = clips.current
        self.query_one(Thumbnails).show(self._items, clips.cursor)
        if item == self._shown:
            return
        self._shown = item
        self.query_one(Player).load(*([Playable(item.path, visible(item.path.name))] if item is not None else []))
        draft = self._drafts.get(item_key(item)) if item is not None else None
        self._load_caption("" if item is None else draft.text if draft is not None else item.caption, draft)
        self.query_one("#caption", TextArea).read_only = item is None
        self._describe()

    def _load_caption(self, text: str, draft: Draft | None) -> None:
        area = self.query_one("#caption", TextArea)
        if area.text != visible(text):
            area.load_text(visible(text))
        self._loaded = area.text, draft  # the field may have other line ends

    def _describe(self) -> None:
        item = self._shown
        area, note = self.query_one("#caption", TextArea), self.query_one("#caption-note", Static)
        edited = item is not None and item_key(item) in self._drafts
        area.border_subtitle = "edited: ctrl+s saves, esc drops it" if edited else ""
        if item is None:
            note.update("")
            return
        facts = [f"{item.width}x{item.height}"] if item.width else []
        facts += [f"{item.frames} frames"] if item.frames else []
        facts += [f"{item.seconds:.1f} s"] if item.seconds else []
        facts += [f"uses {', '.join(dict.fromkeys(item.clips))}"] if item.clips else []
        around = [f"{name} “{text}”" for name, text in (("prefix", item.prefix), ("suffix", item.suffix)) if text]
        words = Content(visible(" · ".join([*facts, *around, item.caption_file.name])))
        note.update(Content.styled(visible(item.problem), "$error") if item.problem else words.stylize("$faint"))

    @on(TextArea.Changed, "#caption")
    def _typed(self) -> None:
        item = self._shown
        if item is None:
            return
        shown, key = self.query_one("#caption", TextArea).text, item_key(item)
        text, begun = original(shown), self._drafts.get(key)
        loaded, draft = self._loaded
        if shown != loaded:
            draft = Draft(text, begun.before if begun is not None else item.caption)
        if draft is None or text.strip() == item.caption:  # as it is saved
            self._drafts.pop(key, None)
        else:
            self._drafts[key] = draft
        clips = self.query_one(ClipList)
        if clips.edited != set(self._drafts):
            clips.edited = set(self._drafts)
            clips.refresh()
        self._describe()

    def action_save(self) -> None:
        item = self._shown
        if item is None or item_key(item) not in self._drafts:
            self.notify("this caption was not changed", markup=False)
            return
        draft = self._drafts[item_key(item)]
        edited = replace(item, caption=draft.before)
        self.in_thread(
            f"save-{item_key(item)}", lambda: write_caption(edited, draft.text), lambda new: self._saved(item, new)
        )

    def _saved(self, old: Item, new: Item) -> None:
        self._drafts.pop(item_key(old), None)
        if self._reader is not None:
            self._reader.replace(old, new)
        self._saved_last = item_key(new)
        if self._shown == old:
            self._shown = new
            self._loaded = visible(new.caption), None
            self._typed()  # text typed meanwhile is an edit of the new caption
        self._filter()
        self._describe()
        self._say_saved("saved; asking what will run again")
        if self._plan is not None:
            self._plan.cancel()
        self._plan = self.dashboard.files.dry_run()
        self.in_thread("rerun", self._plan.run, self._tell_rerun, self._rerun_unknown)

    def _tell_rerun(self, plan: Rerun) -> None:
        words = f"not known: {plan.error}" if plan.error else plan.summary
        self._say_saved(f"saved; next start: {words}")

    def _rerun_unknown(self, error: Exception) -> None:
        self._say_saved(f"saved; what will run again is not known: {error}")

    def _say_saved(self, words: str) -> None:
        """Show the effect of a saved caption, if its clip is still shown."""
        if self._shown is not None and item_key(self._shown) == self._saved_last:
            self.say("#caption-note", Content.styled(visible(words), "$accent"))

    # Keys

    def action_play(self) -> None:
        self.query_one(Player).action_play()

    def action_ask(self) -> None:
        field = self.query_one("#dataset-words", Input)
        field.add_class("-shown")
        field.focus()

    @on(Input.Changed, "#dataset-words")
    def _filtered(self, message: Input.Changed) -> None:
        self._words = message.value
        self._filter()

    @on(Input.Submitted, "#dataset-words")
    def _done(self) -> None:
        self.query_one(ClipList).focus()

    def action_back(self) -> None:
        field, area = self.query_one("#dataset-words", Input), self.query_one("#caption", TextArea)
        if area.has_focus and self._shown is not None and item_key(self._shown) in self._drafts:
            self._load_caption(self._shown.caption, None)
            self._typed()
        elif field.has_focus or field.value:
            field.value = ""
            field.remove_class("-shown")
        self.query_one(ClipList).focus()

    def action_copy(self) -> None:
        if self._shown is not None:
            self.app.copy_to_clipboard(str(self._shown.path))
            self.notify(str(self._shown.path), title="Copied", markup=False)


def bucket_text(buckets: dict[str, int], problems: Iterable[str]) -> Content:
    """How many clips each size has, and what is wrong with the dataset as a whole."""
    most, width = max(buckets.values(), default=1), max((len(name) for name in buckets), default=0)
    lines = [Content.styled(visible(problem.partition("\n")[0]), "$error") for problem in problems]
    for name, count in sorted(buckets.items(), key=lambda each: -each[1]):
        lines.append(Content.assemble(f"{name:<{width}}  ", (bar(count / most, 10), "$primary"), f" {count:,}"))
    if not buckets:
        lines.append(Content.styled("not known yet", "$faint"))
    return Content("\n").join(lines)
