"""Remembers what media files show, by their content, so that an unchanged dataset is planned without opening a file.

Times are stored as runs of equal steps: those of a clip at a constant rate are three numbers, however long it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate, chain, groupby, pairwise, repeat
from pathlib import Path
from typing import TypeAlias, cast

from hv15.data.frames import Timeline
from hv15.data.media import MediaFile, MediaInfo, MediaKind
from hv15.data.probe import probe
from hv15.records.json_values import Json
from hv15.remembered import Memory

VERSION = 1
"""Raised whenever `probe` learns to see something else in the same file."""

Packed: TypeAlias = (
    "tuple[int, int, bool, tuple[list[int], int, str, str | None], list[int] | None, list[int], list[str]]"
)
"""As it is stored: height, width, alpha, (times, duration, tick, rate), pts, key frames, notes."""


class Probed:
    """What the files of datasets show.

    Args:
        path: of the file that remembers it; projects that share a store share it.
    """

    def __init__(self, path: Path) -> None:
        self._memory = Memory(path, VERSION, "media files are looked into again")

    def info(self, source: MediaFile, media: str) -> MediaInfo:
        """Return what a file shows.

        Args:
            media: its key: the sha256 of its content.

        Raises:
            MediaError: it cannot be used. That is not remembered: a disk that failed once may be read the next time.
        """
        known = self.known(source.path, source.kind, media)
        if known is not None:
            return known
        info = probe(source.path, source.kind)
        self._memory.learn(_key(info.path, info.kind, media), _packed(info))
        return info

    def known(self, path: Path, kind: MediaKind, media: str) -> MediaInfo | None:
        """Return what a file of this content shows, if it is remembered."""
        stored = self._memory.entries.get(_key(path, kind, media))
        return None if stored is None else _unpacked(stored, path, kind)

    def save(self) -> None:
        """Keep what was learnt, if that can be written."""
        self._memory.save()


def _key(path: Path, kind: MediaKind, media: str) -> str:
    return f"{media} {kind} {path.suffix.lower()}"  # what FFmpeg sees may depend on the ending


def _packed(info: MediaInfo) -> Json:
    """As `Packed`, in lists."""
    line = info.timeline
    return [
        info.height,
        info.width,
        info.alpha,
        [_runs(line.times), line.duration, str(line.tick), None if line.rate is None else str(line.rate)],
        None if info.pts is None else _runs(info.pts),
        _runs(info.keyframes),
        list(info.notes),
    ]


def _unpacked(stored: Json, path: Path, kind: MediaKind) -> MediaInfo:
    """What `_packed` made; its file has a digest, so it is not looked through for mistakes."""
    height, width, alpha, (times, duration, tick, rate), pts, keyframes, notes = cast("Packed", stored)
    return MediaInfo(
        path,
        kind,
        height,
        width,
        alpha,
        Timeline(_times(times), duration, _fraction(tick), None if rate is None else _fraction(rate)),
        None if pts is None else _times(pts),
        _times(keyframes),
        tuple(notes),
    )


@lru_cache(maxsize=256)
def _fraction(text: str) -> Fraction:
    return Fraction(text)


def _runs(times: Sequence[int]) -> list[Json]:
    """Ascending numbers as the first one, then each step with how often it follows: 0 1 2 3 7 is 0, 1 3, 4 1."""
    steps = groupby(later - earlier for earlier, later in pairwise(times))
    return [*times[:1], *chain.from_iterable((step, sum(1 for _ in same)) for step, same in steps)]


def _times(runs: Sequence[int]) -> tuple[int, ...]:
    if not runs:
        return ()
    if len(runs) == 3:
        first, step, count = runs
        return tuple(range(first, first + step * count + 1, step))
    steps: Iterable[int] = chain.from_iterable(map(repeat, runs[1::2], runs[2::2]))
    return tuple(accumulate(steps, initial=runs[0]))
