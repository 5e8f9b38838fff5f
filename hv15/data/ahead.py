"""Decodes the next files while the caller works on the current clip."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.background import Background
from hv15.data.clips import Clip
from hv15.data.decode import read_clips
from hv15.data.media import MediaError, MediaInfo, MediaKind
from hv15.data.pixels import Pixels

if TYPE_CHECKING:
    from hv15.config.datasets import DatasetSettings


@dataclass(frozen=True)
class DecodeJob:
    """The clips to decode from one file. `tag` is for the caller's own use."""

    path: Path
    kind: MediaKind
    clips: list[Clip]
    dataset: DatasetSettings
    info: MediaInfo | None = None
    tag: object = None


Decoded = tuple[Clip, Pixels]


def decode_ahead(
    jobs: Iterable[DecodeJob], workers: int, ahead: int = 2
) -> Iterator[tuple[DecodeJob, Decoded | MediaError]]:
    """Yield the clips of each job, [F, H, W, 3] pixels, in the order of the jobs.

    If a file cannot be decoded, its MediaError is yielded instead of its remaining clips.

    Args:
        jobs: iterated lazily.
        workers: number of threads; each decodes one file.
        ahead: number of clips that each thread may decode in advance, so at most workers * ahead finished clips are in
            memory, plus what decoding needs.

    Raises:
        Exception: any other exception from decoding, when its clip would be yielded.
    """
    waiting = iter(jobs)
    running: deque[tuple[DecodeJob, Background[Decoded]]] = deque()
    try:
        while True:
            while len(running) < max(1, workers) and (job := next(waiting, None)) is not None:
                clips = read_clips(job.path, job.kind, job.clips, job.dataset, job.info)
                running.append((job, Background(clips, ahead=ahead, name=f"decode {job.path.name}")))
            if not running:
                return
            job, results = running[0]
            try:
                for result in results:
                    yield job, result
            except MediaError as error:
                yield job, error
            running.popleft()
    finally:
        for _, results in running:
            results.close()
