"""Which source frame is shown when, and which windows of frames become clips. Exact integer arithmetic throughout.

Notable choices:
- A clip plays at the target rate (24 fps). Its frame k shows what the source displays k/24 s after its first frame:
  the last source frame whose time is not later. A slower source repeats frames, a variable rate needs no special case.
- Containers such as Matroska round times to milliseconds, so a 24 fps frame may be stamped a little after its due time
  and would be missed by one. Times that lie on the grid of the stated rate, give or take a tick, are put back onto it.
- A video of length d has floor(24 d) frames, at least one: a frame is counted when its whole time slot is filled.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from hv15.errors import UserError

EXTRACTIONS = ("head", "chunk", "slide", "uniform", "full")
_GRID_SHARE = Fraction(9, 10)  # frames dropped by a recorder leave the rest on the grid
_GRID_TICKS = 8  # a coarser clock than this is taken at its word


@dataclass(frozen=True, slots=True)
class Timeline:
    """When each source frame appears, in ticks after the first one."""

    times: tuple[int, ...]
    """Ascending, the first is 0."""
    duration: int
    """Ticks until the last frame disappears."""
    tick: Fraction
    """Seconds."""

    @staticmethod
    def constant(count: int, fps: Fraction) -> Timeline:
        """Return `count` frames at a constant rate: frame i at i/fps seconds."""
        step = fps.denominator
        return Timeline(tuple(range(0, count * step, step)), count * step, Fraction(1, fps.numerator))

    @staticmethod
    def stamped(pts: Sequence[int], time_base: Fraction, last: int, rates: Iterable[Fraction | None]) -> Timeline:
        """Return the timeline of container timestamps.

        Args:
            pts: ascending timestamps in units of `time_base` seconds.
            last: how long the last frame is shown, in the same units; 0 when unknown.
            rates: frame rates that the container states, the most trusted first (None = not stated).
        """
        for rate in rates:
            if rate is not None and rate > 0 and 1 / rate >= _GRID_TICKS * time_base:
                snapped = _snap(pts, time_base, last, rate)
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

    def count(self, fps: Fraction) -> int:
        """Return how many frames the video has when it is played at `fps`."""
        return max(1, math.floor(self.duration * self.tick * fps))

    def source_frame(self, index: int, fps: Fraction) -> int:
        """Return the source frame that is displayed at `index`/`fps` seconds."""
        return bisect_right(self.times, math.floor(index / (fps * self.tick))) - 1


def _snap(pts: Sequence[int], time_base: Fraction, last: int, rate: Fraction) -> Timeline | None:
    """Put timestamps onto the grid of `rate` if nearly all lie within one tick of it."""
    tick = Fraction(1, math.lcm(time_base.denominator, rate.numerator))
    unit, step = int(time_base / tick), int(1 / rate / tick)
    times, on_grid = [], 0
    for stamp in pts:
        time = (stamp - pts[0]) * unit
        nearest = (2 * time + step) // (2 * step) * step
        if abs(nearest - time) <= unit:
            time, on_grid = nearest, on_grid + 1
        times.append(time)
    if on_grid < _GRID_SHARE * len(pts) or any(b <= a for a, b in itertools.pairwise(times)):
        return None
    length = last * unit
    if last <= 0 or abs(length - step) <= unit:
        length = step
    return Timeline(tuple(times), times[-1] + length, tick)


def exact_fps(fps: float) -> Fraction:
    """Return the rate as the decimal number that the user wrote: 29.97 is 2997/100."""
    return Fraction(str(fps))


def down_to_4k1(frames: int) -> int:
    """Return the largest 4k+1 that is not above `frames`: the VAE turns 4k+1 frames into k+1 latent frames."""
    return (frames - 1) // 4 * 4 + 1


def windows(
    count: int,
    extraction: str,
    target_frames: Iterable[int],
    *,
    stride: int = 1,
    sample: int = 1,
    max_frames: int = 129,
) -> list[tuple[int, int]]:
    """Return the windows (start, length in frames) of a video of `count` frames, without repetitions.

    head takes the first T frames; chunk takes T after T; slide starts every `stride` frames; uniform spreads `sample`
    starts from the first to the last possible; full takes the whole video up to `max_frames`. T and the full length
    are rounded down to 4k+1; a T that is longer than the video gives no window.
    """
    if extraction not in EXTRACTIONS:
        raise UserError(f"frame_extraction {extraction!r} is unknown", hint=f"use one of {', '.join(EXTRACTIONS)}")
    if extraction == "full":
        return [(0, down_to_4k1(min(count, max_frames)))] if count > 0 else []
    found: dict[tuple[int, int], None] = {}
    for length in map(down_to_4k1, target_frames):
        last = count - length
        if length < 1 or last < 0:
            continue
        if extraction == "head":
            starts: Iterable[int] = (0,)
        elif extraction == "chunk":
            starts = range(0, last + 1, length)
        elif extraction == "slide":
            starts = range(0, last + 1, stride)
        else:
            starts = (i * last // (sample - 1) for i in range(sample)) if sample > 1 else (0,)
        found.update(dict.fromkeys((start, length) for start in starts))
    return list(found)
