"""Which source frame is shown when, and which windows of frames become clips. Exact integer arithmetic throughout.

Notable choices:
- A clip plays at the target rate (24 fps). Its frame k shows what the source displays k/24 s after its first frame:
  the last source frame whose time is not later. A slower source repeats frames, a variable rate needs no special case.
- Films run at 24000/1001 = 23.976 fps: 1/24 s after its first frame such a video still shows that frame, which would
  make every first frame a double. A rate within 0.2 % of a whole multiple or part of the target counts as that.
- A film on a DVD keeps its frames for 3, 2, 3, 2 ... fields of 59.94 a second. It is taken at the film's own rate.
- Matroska and FLV round times to milliseconds, and what is copied out of them keeps those times, so a 24 fps frame may
  be stamped a little after its due time and would be missed by one. Times that lie on the grid of a constant rate, give
  or take a tick or a millisecond, are put back onto it.
- A video of length d has floor(24 d) frames, at least one: a frame is counted when its whole time slot is filled.
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
"""Clips cut from one file: those of a two-hour film, one after the other, are about half as many."""

_GRID_SHARE = Fraction(9, 10)  # frames dropped by a recorder leave the rest on the grid
_GRID_TICKS = 8  # to a frame; a coarser clock than this is taken at its word
_ROUNDED = Fraction(1, 1000)  # seconds: what containers with a clock of milliseconds do to times
_SAME_RATE = Fraction(1, 500)  # 1000/1001 is half of it


@dataclass(frozen=True, slots=True)
class Timeline:
    """When each source frame appears, in ticks after the first one."""

    times: tuple[int, ...]
    """Ascending, the first is 0."""
    duration: int
    """Ticks until the last frame disappears."""
    tick: Fraction
    """Seconds."""
    rate: Fraction | None = None
    """Frames per second if that is constant, but for frames that were dropped."""

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
            last: how long the last frame is shown, in the same units; 0 when unknown.
            rates: frame rates that the container states, the most trusted first (None = not stated).
        """
        candidates = [rate for rate in (*rates, _measured(pts, time_base)) if rate is not None and rate > 0]
        snapped = next((line for rate in candidates if (line := _snap(pts, time_base, last, rate))), None)
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

        That is `fps` itself, or so much more or less that a constant rate is a whole multiple or part of it: a clip at
        24 fps takes 23.976 frames a second from a video of 23.976 or 47.952, each or every second one.
        """
        return fps if self.rate is None else _clock(self.rate, fps)

    def count(self, fps: Fraction) -> int:
        """Return how many frames the video has when it is played at `fps`."""
        return max(1, math.floor(self.duration * self.tick * self.clock(fps)))

    def source_frame(self, index: int, fps: Fraction) -> int:
        """Return the source frame that is shown as frame `index` of a clip at `fps`."""
        return bisect_right(self.times, math.floor(index / (self.clock(fps) * self.tick))) - 1

    def longest_still(self) -> tuple[int, Fraction]:
        """Return the source frame that is shown longest, and for how many seconds."""
        ends = (*self.times[1:], self.duration)
        stands = list(map(operator.sub, ends, self.times))
        longest = max(stands)
        return stands.index(longest), longest * self.tick


@lru_cache(maxsize=256)
def _clock(rate: Fraction, fps: Fraction) -> Fraction:
    ratio = rate / fps
    whole = Fraction(round(ratio)) if ratio >= 1 else Fraction(1, round(1 / ratio))
    return rate / whole if abs(ratio / whole - 1) <= _SAME_RATE else fps


def _measured(pts: Sequence[int], time_base: Fraction) -> Fraction | None:
    """Return the rate between the first and the last frame: cameras keep a constant one that no header states."""
    return (len(pts) - 1) / ((pts[-1] - pts[0]) * time_base) if len(pts) > 2 else None


def _snap(pts: Sequence[int], time_base: Fraction, last: int, rate: Fraction) -> Timeline | None:
    """Put timestamps onto the grid of `rate` if nearly all lie within a tick or a millisecond of it.

    A coarse clock, as that of an AVI, which counts frames, must lie on the grid itself. The rate is the video's own if
    it has a frame for at least half of the grid's points.
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


def _film(line: Timeline | None, fields: Fraction) -> Timeline | None:
    """Return the film's own timeline if a grid of fields holds its frames for 3, 2, 3, 2 ... of them (pulldown)."""
    if line is None:
        return None
    step = 1 / fields / line.tick
    stands = [(b - a) / step for a, b in itertools.pairwise(line.times)]
    pairs = [a + b for a, b in itertools.pairwise(stands)]
    if not pairs or not set(stands) <= {2, 3} or pairs.count(Fraction(5)) < _GRID_SHARE * len(pairs):
        return None
    return Timeline.constant(len(line.times), fields * 2 / 5)


@lru_cache(maxsize=64)
def exact_fps(fps: float) -> Fraction:
    """Return the rate as the decimal number that the user wrote: 29.97 is 2997/100."""
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
    """Return the windows (start, length in frames) of a video of `count` frames, without repetitions.

    head takes the first T frames; chunk takes T after T; slide starts every `stride` frames; uniform spreads `sample`
    starts from the first to the last possible; full takes the whole video up to `max_frames`. T and the full length
    are rounded down to 4k+1; a T that is longer than the video gives no window.

    Raises:
        UserError: `extraction` is unknown, or there would be more than MOST_WINDOWS.
    """
    if extraction not in EXTRACTIONS:
        raise UserError(f"frame_extraction {extraction!r} is unknown", hint=f"use one of {', '.join(EXTRACTIONS)}")
    if extraction == "full":
        return [(0, encodable_frames(count if max_frames is None else min(count, max_frames)))] if count > 0 else []
    found: dict[tuple[int, int], None] = {}
    for length in map(encodable_frames, target_frames):
        if 1 <= length <= count:
            starts = _starts(count - length, extraction, length, stride, sample)
            found.update(dict.fromkeys((start, length) for start in itertools.islice(starts, MOST_WINDOWS + 1)))
        if len(found) > MOST_WINDOWS:
            raise UserError(
                f"its {count} frames would give more than {MOST_WINDOWS} clips, the most that one file may give",
                hint="cut it into shorter files, or raise frame_stride, or use frame_extraction: uniform",
            )
    return list(found)


def _starts(last: int, extraction: str, length: int, stride: int, sample: int) -> Iterator[int]:
    """Return where windows of `length` begin, the last possible start being `last`."""
    if extraction == "head" or (extraction == "uniform" and sample == 1):
        return iter((0,))
    if extraction == "uniform":
        sample = min(sample, last + 1)
        return (i * last // max(1, sample - 1) for i in range(sample))
    return iter(range(0, last + 1, length if extraction == "chunk" else stride))
