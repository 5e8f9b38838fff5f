"""Plays clips in the terminal: one, or two side by side that share one playhead."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from rich.style import Style
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.strip import Strip
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Static

from hv15.errors import UserError
from hv15.terminal_text import visible
from tui.colours import few_colours
from tui.data.samples import DecodedClip, load_clip
from tui.widgets.half_blocks import half_blocks

FASTEST, SLOWEST = 6.0, 1.0
"""Frames drawn each second. A terminal over SSH manages about six; more are not sent."""
SHORT_S = 4.0
"""A clip that can be drawn frame by frame in this time is played slowly, each frame once."""
UNATTENDED_S = 60.0
"""Playing pauses after this long without a key: nobody may be watching."""
CURE = "COLORTERM=truecolor if the terminal has more"
"""What to do if the terminal does not announce true colour."""


@dataclass(frozen=True)
class Playable:
    """Something to play."""

    path: Path
    title: str


class VideoView(Widget):
    """One clip at one frame, drawn as half blocks in the middle of the widget."""

    DEFAULT_CSS = """
    VideoView { width: 1fr; height: 1fr; border: round $border; border-title-color: $foreground; }
    VideoView.-error { color: $text-warning; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.clip: Playable | None = None
        self.frames: DecodedClip | None = None
        self.note = ""
        self.index = 0
        self._strips: list[Strip] = []

    def expect(self, clip: Playable) -> None:
        """Show that a clip is being read; until then, frames of the same file stay."""
        if self.clip is None or self.clip.path != clip.path:
            self.frames, self._strips, self.note = None, [], "reading"
            self.remove_class("-error")
        self.clip = clip
        self.border_title = Content(clip.title).plain.replace("[", "\\[")
        self.refresh()

    def show(self, frames: DecodedClip | None, note: str = "") -> None:
        """Take the frames of the clip, or a note on why there are none."""
        self.frames, self.note = frames, visible(note)
        self.set_class(frames is None and bool(note), "-error")
        self.seek(self.index)

    def seek(self, index: int) -> None:
        """Show a frame; beyond the end the last one."""
        if self.frames is None or not len(self.frames.frames):
            self._strips = []
        else:
            self.index = max(0, min(index, len(self.frames.frames) - 1))
            self._strips = half_blocks(self.frames.frames[self.index])
        self.refresh()

    def render_line(self, y: int) -> Strip:
        width, base = self.size.width, self.rich_style
        if not self._strips:
            return self._note_line(y, width, base)
        line = y - max(0, (self.size.height - len(self._strips)) // 2)
        if not 0 <= line < len(self._strips):
            return Strip.blank(width, base)
        strip = self._strips[line]
        left = max(0, (width - strip.cell_length) // 2)
        right = max(0, width - left - strip.cell_length)
        return Strip.join([Strip.blank(left, base), strip, Strip.blank(right, base)]).crop(0, width)

    def _note_line(self, y: int, width: int, base: Style) -> Strip:
        lines = Content(self.note).wrap(max(1, width - 2))
        line = y - max(0, (self.size.height - len(lines)) // 2)
        if not 0 <= line < len(lines):
            return Strip.blank(width, base)
        text = lines[line].plain.rstrip()
        left = max(0, (width - lines[line].cell_length) // 2)
        return Strip(Content(" " * left + text).render_segments(self.visual_style)).adjust_cell_length(width, base)


class Player(Vertical, can_focus=True):
    """Plays one clip or two on one playhead: the keys move both."""

    DEFAULT_CSS = """
    Player { height: 1fr; }
    Player > Horizontal { height: 1fr; }
    Player > Static { height: 1; color: $text-muted; text-align: center; }
    Player:focus VideoView { border: round $primary; }
    """
    PART_NAME = "Video"
    HELP = """Plays a clip in the terminal, at about six frames a second or what the line manages; space plays, left and
    right move by a frame. Two samples move together. It pauses when the terminal loses the focus, and after a minute
    without a key. Where the terminal has fewer colours than pictures need, there are stills only."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "play", "Play", id="video-play", tooltip="play or pause"),
        Binding("left", "step(-1)", "Frame back", id="video-back", show=False, tooltip="the frame before"),
        Binding("right", "step(1)", "Frame on", id="video-on", show=False, tooltip="the next frame"),
        Binding("home", "seek(0)", "First frame", id="video-first", show=False, tooltip="the first frame"),
        Binding("end", "seek(-1)", "Last frame", id="video-last", show=False, tooltip="the last frame"),
    ]

    @dataclass
    class FramesRead(Message):
        """A clip was decoded, or could not be."""

        slot: int
        clip: Playable
        frames: DecodedClip | None
        error: str = ""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.views = [VideoView(), VideoView()]
        self.clips: list[Playable] = []
        self.nothing = "nothing to play yet"
        """What is said as long as there is no clip."""
        self.playing = False
        self.rate = FASTEST
        self._clock = clock
        self._timer: Timer | None = None
        self._due = self._touched = 0.0
        self._since, self._from = 0.0, 0
        self._read_for: list[tuple[Path, Size]] = []
        self._cancel = threading.Event()
        self._keys: list[Callable[[], None]] = []
        """Keys that were pressed while the clip is being read."""

    def compose(self) -> ComposeResult:
        yield Horizontal(*self.views)
        yield Static()

    def on_mount(self) -> None:
        self.views[1].display = False
        self.watch(self.app, "app_focus", self._on_terminal_focus, init=False)

    def load(self, *clips: Playable, at: int | None = None) -> None:
        """Show one clip or two, or none; at a frame if one is given. Clips that are shown already keep playing."""
        if at is not None:
            self.views[0].index = at
        self.views[1].index = self.views[0].index
        shown = [clip.path for clip in self.clips]
        self.clips = list(clips[:2])
        if [clip.path for clip in self.clips] != shown:
            self.pause()
            self._read_for = []
            self._keys.clear()
        for view, clip in zip(self.views, self.clips, strict=False):
            view.expect(clip)
        for view in self.views[max(1, len(self.clips)) :]:
            view.display = False
        for view in self.views[: len(self.clips)]:
            view.display = True
        if not self.clips:
            self.views[0].clip = None
            self.views[0].show(None, self.nothing)
            self.views[0].border_title = None
        self.call_after_refresh(self._read)

    def reload(self) -> None:
        """Read the files again, because they have changed."""
        self._read_for = []
        self._read()

    def on_resize(self) -> None:
        self.call_after_refresh(self._read)

    def on_unmount(self) -> None:
        self._cancel.set()

    def _read(self) -> None:
        """Decode for the current size of the views, unless that is done already."""
        wanted = [(clip.path, view.size) for clip, view in zip(self.clips, self.views, strict=False)]
        if not wanted or wanted == self._read_for or any(not size for _, size in wanted):
            return
        self._read_for = wanted
        sizes, clips = [size for _, size in wanted], list(self.clips)
        self._cancel.set()
        cancel = self._cancel = threading.Event()
        self.run_worker(lambda: self._decode(clips, sizes, cancel), thread=True, group="decode", exit_on_error=False)

    def _decode(self, clips: Sequence[Playable], sizes: Sequence[Size], cancel: threading.Event) -> None:
        for slot, (clip, size) in enumerate(zip(clips, sizes, strict=True)):
            frames, error = None, ""
            try:
                frames = load_clip(clip.path, size.width, 2 * size.height, cancel=cancel)
                error = "" if len(frames.frames) else "no frames in it"
            except UserError as problem:
                error = problem.message
            except Exception as problem:  # a file that is being written, or a decoder's bug
                error = f"{clip.path.name} cannot be shown: {problem}"
            if not cancel.is_set():
                self.post_message(self.FramesRead(slot, clip, frames, error))

    def on_player_frames_read(self, message: FramesRead) -> None:
        message.stop()
        if message.slot < len(self.clips) and self.clips[message.slot].path == message.clip.path:
            self.views[message.slot].show(
                message.frames if message.frames and len(message.frames.frames) else None, message.error
            )
            self._say()
            self._catch_up()

    def _catch_up(self) -> None:
        """Act on the keys that were pressed while the clip was read."""
        keys, self._keys = ([], self._keys) if self._reading else (self._keys, [])
        for key in keys:
            key()

    @property
    def _reading(self) -> bool:
        """Whether a clip that is to be shown is still being read."""
        views = self.views[: len(self.clips)]
        return any(view.frames is None and not view.has_class("-error") for view in views)

    @property
    def _longest(self) -> DecodedClip | None:
        found = [view.frames for view in self.views if view.display and view.frames is not None]
        return max(found, key=lambda clip: len(clip.frames), default=None)

    @property
    def index(self) -> int:
        """The frame that is shown, of the longer clip."""
        return max((view.index for view in self.views if view.display and view.frames is not None), default=0)

    def action_play(self) -> None:
        self._touched = self._clock()
        if self._reading:
            self._keys.append(self.action_play)
        elif self.playing:
            self.pause()
        elif (frames := self._longest) is not None and len(frames.frames) > 1 and not few_colours(self.app):
            self.playing = True
            self._since, self._from = self._clock(), self.index
            self._plan()
        self._say()

    def pause(self) -> None:
        """Stop at the frame that is shown."""
        self.playing = False
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        self._say()

    def action_step(self, count: int) -> None:
        if self._reading:
            self._keys.append(partial(self.action_step, count))
            return
        self.pause()
        if (frames := self._longest) is not None:
            self._seek((self.index + count) % len(frames.frames))

    def action_seek(self, index: int) -> None:
        if self._reading:
            self._keys.append(partial(self.action_seek, index))
            return
        self.pause()
        if (frames := self._longest) is not None:
            self._seek(index % len(frames.frames))

    def _seek(self, index: int) -> None:
        for view in self.views:
            if view.display:
                view.seek(index)
        self._say()

    def _plan(self) -> None:
        self._due = self._clock() + 1 / self.rate
        self._timer = self.set_timer(1 / self.rate, self._tick)

    def _tick(self) -> None:
        frames = self._longest
        now = self._clock()
        if frames is None or not self.playing:
            return
        if now - self._touched > UNATTENDED_S or self.app.screen is not self.screen:
            self.pause()
            return
        self.rate = adapted(self.rate, late=now - self._due, waiting=waiting_output(self.app))
        if len(frames.frames) <= SHORT_S * FASTEST:
            self._seek((self.index + 1) % len(frames.frames))
        else:
            self._seek((self._from + int((now - self._since) * frames.fps)) % len(frames.frames))
        self._plan()

    def _say(self) -> None:
        frames = self._longest
        if not self.is_mounted:
            return
        if frames is None:
            self.query_one("Player > Static", Static).update("")
            return
        few = few_colours(self.app)
        parts = [
            "▶ playing" if self.playing else f"stills only: {few} ({CURE})" if few else "‖ paused",
            f"frame {self.index + 1}/{len(frames.frames)}",
            f"{self.index / frames.fps:.2f} s",
            f"{frames.source_size[0]}x{frames.source_size[1]}",
        ]
        if self.playing and len(frames.frames) <= SHORT_S * FASTEST:
            parts.append("frame by frame")
        self.query_one("Player > Static", Static).update(Content("  ".join(parts)))

    def _on_terminal_focus(self, focused: bool) -> None:
        if not focused:
            self.pause()


def adapted(rate: float, *, late: float, waiting: int) -> float:
    """Return the next drawing rate: lower when a frame came late or output is waiting, slowly up again otherwise."""
    if waiting > 1 or late > 0.5 / rate:
        return max(SLOWEST, rate * 0.7)
    return min(FASTEST, rate * 1.05)


def waiting_output(app: App[object]) -> int:
    """Return how many writes the terminal has not taken yet. Textual blocks at 30; it does not publish the number."""
    queue = getattr(getattr(getattr(app, "_driver", None), "_writer_thread", None), "_queue", None)
    return queue.qsize() if queue is not None else 0
