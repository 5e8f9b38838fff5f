"""The times of source frames, and the windows of frames that become clips. All arithmetic is exact, on integers.

Notable choices:
- A clip plays at the target rate (24 fps). Its frame k is what the source shows k/24 s after its first frame: the last
  source frame whose time is not later. A slower source repeats frames; a variable rate needs no special case.
- Films run at 24000/1001 = 23.976 fps: 1/24 s after its first frame such a video still shows that frame, so every first
  frame would be doubled. A rate within 0.2 % of a whole multiple or fraction of the target is taken to be exactly that.
- A film on a DVD shows its frames for 3, 2, 3, 2 ... of 59.94 fields a second. It is read at the film's own rate.
- Matroska and FLV round times to milliseconds, and files converted from them keep those times. So a 24 fps frame may
  have a time slightly after its true one and would be missed. Times within a tick or a millisecond of the grid of a
  constant rate are moved onto the grid.
- A video of length d has floor(24 d) frames, at least one: a frame counts if its whole time slot is filled.
"""

from __future__ import annotations

import itertools
import math
import operator
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from hv15.errors import UserError
from hv15.grid import encodable_frames

EXTRACTIONS = ("head", "chunk", "slide", "uniform", "full")
MOST_WINDOWS = 20_000
"""Most clips from one file; a two-hour film cut into consecutive clips has about half as many."""

_GRID_SHARE = Fraction(9, 10)  # share of frames that must be on the grid; a recorder's dropped frames do not matter
_GRID_TICKS = 8  # ticks per frame; with fewer, times are not corrected by a millisecond
_ROUNDED = Fraction(1, 1000)  # seconds; the rounding of containers with times in milliseconds
_SAME_RATE = Fraction(1, 500)  # relative; 1000/1001 differs by half of it


@dataclass(frozen=True, slots=True)
class Timeline:
    """The times of all source frames, in ticks after the first frame."""

    times: tuple[int, ...]
    """When each frame appears, ascending from 0."""
    duration: int
    """When the last frame disappears."""
    tick: Fraction
    """Seconds in a tick."""
    rate: Fraction | None = None
    """Frames per second if the rate is constant except for dropped frames."""

    @staticmethod
    def constant(count: int, fps: Fraction) -> Timeline:
        """Return `count` frames at a constant rate: frame i at i/fps seconds."""
        step = fps.denominator
        return Timeline(tuple(range(0, count * step, step)), count * step, Fraction(1, fps.numerator), fps)

    @staticmethod
    def stamped(pts: Sequence[int], time_base: Fraction, last: int, rates: Iterable[Fraction | None]) -> Timeline:
        """Return the timeline of container timestamps.

        Args:
            pts: ascending timestamps in units of `time_base` seconds.
            last: how long the last frame is shown, in the same units; 0 if unknown.
            rates: frame rates that the container states, the most reliable first (None = not stated).
        """
        candidates = [rate for rate in (*rates, _measured(pts, time_base)) if rate is not None and rate > 0]
        snapped = next((found for rate in candidates if (found := _snap(pts, time_base, last, rate))), None)
        if snapped is None or snapped.rate is None:
            for fields in dict.fromkeys([*candidates, *(2 * rate for rate in candidates)]):
                if film := _film(_snap(pts, time_base, last, fields), fields):
                    return film
        if snapped is not None:
            return snapped
        times = tuple(stamp - pts[0] for stamp in pts)
        if last <= 0:
            last = times[-1] - times[-2] if len(times) > 1 else 1
        return Timeline(times, times[-1] + last, time_base)

    @property
    def fps(self) -> Fraction:
        """The mean frame rate."""
        return len(self.times) / (self.duration * self.tick)

    def clock(self, fps: Fraction) -> Fraction:
        """Return how many frames a clip at `fps` takes from each second of this video.

        That is `fps`, adjusted slightly if the video's constant rate is then a whole multiple or fraction of it: a clip
        at 24 fps takes 23.976 frames a second from a video at 23.976 or 47.952, every frame or every second one.
        """
        return fps if self.rate is None else _clock(self.rate, fps)

    def count(self, fps: Fraction) -> int:
        """Return how many frames the video has when it is played at `fps`."""
        clock = self.clock(fps)  # in whole numbers: arithmetic with fractions takes ten times as long
        return max(
            1, self.duration * self.tick.numerator * clock.numerator // (self.tick.denominator * clock.denominator)
        )

    def source_frame(self, index: int, fps: Fraction) -> int:
        """Return the source frame that is shown as frame `index` of a clip at `fps`."""
        return bisect_right(self.times, math.floor(index / (self.clock(fps) * self.tick))) - 1

    def longest_still(self) -> tuple[int, Fraction]:
        """Return the source frame that is shown longest, and for how many seconds."""
        ends = (*self.times[1:], self.duration)
        lengths = list(map(operator.sub, ends, self.times))
        longest = max(lengths)
        return lengths.index(longest), longest * self.tick


@lru_cache(maxsize=256)
def _clock(rate: Fraction, fps: Fraction) -> Fraction:
    ratio = rate / fps
    whole = Fraction(round(ratio)) if ratio >= 1 else Fraction(1, round(1 / ratio))
    return rate / whole if abs(ratio / whole - 1) <= _SAME_RATE else fps


def _measured(pts: Sequence[int], time_base: Fraction) -> Fraction | None:
    """Return the mean rate from the first to the last frame; a camera's constant rate may not be in any header."""
    return (len(pts) - 1) / ((pts[-1] - pts[0]) * time_base) if len(pts) > 2 else None


def _snap(pts: Sequence[int], time_base: Fraction, last: int, rate: Fraction) -> Timeline | None:
    """Move timestamps onto the grid of `rate` if nearly all are within a tick or a millisecond of it.

    Timestamps in coarse units, such as those of an AVI, which counts frames, must be exactly on the grid. The timeline
    has this rate if there is a frame for at least half of the grid's points.
    """
    tick = Fraction(1, math.lcm(time_base.denominator, rate.numerator))
    unit, step = int(time_base / tick), int(1 / rate / tick)
    slack = max(unit, min(int(_ROUNDED / tick), step // _GRID_TICKS)) if step >= _GRID_TICKS * unit else 0
    times, on_grid = [], 0
    for stamp in pts:
        time = (stamp - pts[0]) * unit
        nearest = (2 * time + step) // (2 * step) * step
        if abs(nearest - time) <= slack:
            time, on_grid = nearest, on_grid + 1
        times.append(time)
    if on_grid < _GRID_SHARE * len(pts) or any(b <= a for a, b in itertools.pairwise(times)):
        return None
    length = last * unit if last > 0 else step
    whole = max(step, (2 * length + step) // (2 * step) * step)
    if abs(length - whole) <= slack:
        length = whole
    filled = 2 * (len(times) - 1) * step >= times[-1]
    return Timeline(tuple(times), times[-1] + length, tick, rate if filled else None)


def _film(timeline: Timeline | None, fields: Fraction) -> Timeline | None:
    """Return the film's own timeline if its frames are shown for 3, 2, 3, 2 ... fields (pulldown)."""
    if timeline is None:
        return None
    step = 1 / fields / timeline.tick
    lengths = [(b - a) / step for a, b in itertools.pairwise(timeline.times)]
    pairs = [a + b for a, b in itertools.pairwise(lengths)]
    if not pairs or not set(lengths) <= {2, 3} or pairs.count(Fraction(5)) < _GRID_SHARE * len(pairs):
        return None
    return Timeline.constant(len(timeline.times), fields * 2 / 5)


@lru_cache(maxsize=64)
def exact_fps(fps: float) -> Fraction:
    """Return the rate as exactly the decimal number that the user wrote: 29.97 is 2997/100."""
    return Fraction(str(fps))


def windows(
    count: int,
    extraction: str,
    target_frames: Iterable[int],
    *,
    stride: int = 1,
    sample: int = 1,
    max_frames: int | None = None,
) -> list[tuple[int, int]]:
    """Return the windows (start, length in frames) of a video of `count` frames, without duplicates.

    For each T of `target_frames`, head takes the first T frames; chunk takes consecutive windows of T frames; slide
    starts a window every `stride` frames; uniform spreads `sample` windows evenly over the video; full takes the whole
    video up to `max_frames`. T and the full length are rounded down to 4k+1; a T longer than the video gives no window.

    Raises:
        UserError: `extraction` is unknown, or there would be more than MOST_WINDOWS.
    """
    if extraction not in EXTRACTIONS:
        raise UserError(f"frame_extraction: unknown value {extraction!r}", hint=f"use one of {', '.join(EXTRACTIONS)}")
    if extraction == "full":
        return [(0, encodable_frames(count if max_frames is None else min(count, max_frames)))] if count > 0 else []
    found: dict[tuple[int, int], None] = {}
    for length in map(encodable_frames, target_frames):
        if 1 <= length <= count:
            starts = _starts(count - length, extraction, length, stride, sample)
            found.update(dict.fromkeys((start, length) for start in itertools.islice(starts, MOST_WINDOWS + 1)))
        if len(found) > MOST_WINDOWS:
            raise UserError(
                f"its {count} frames would give more than {MOST_WINDOWS} clips, the maximum for one file",
                hint="cut it into shorter files, increase frame_stride, or use frame_extraction: uniform",
            )
    return list(found)


def _starts(last: int, extraction: str, length: int, stride: int, sample: int) -> Iterator[int]:
    """Return the first frames of the windows of `length` frames; the last possible one is `last`."""
    if extraction == "head" or (extraction == "uniform" and sample == 1):
        return iter((0,))
    if extraction == "uniform":
        sample = min(sample, last + 1)
        return (i * last // max(1, sample - 1) for i in range(sample))
    return iter(range(0, last + 1, length if extraction == "chunk" else stride))
