"""Decodes the next files while the caller works on the present clip."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.data.clips import Clip
from hv15.data.decode import read_clips
from hv15.data.media import Kind, MediaError, MediaInfo
from hv15.data.pixels import Pixels

if TYPE_CHECKING:
    from hv15.config.datasets import DatasetSettings


@dataclass(frozen=True)
class DecodeJob:
    """The clips wanted of one file. `tag` is the caller's."""

    path: Path
    kind: Kind
    clips: list[Clip]
    dataset: DatasetSettings
    info: MediaInfo | None = None
    tag: object = None


Decoded = tuple[Clip, Pixels]


def decode_ahead(
    jobs: Iterable[DecodeJob], workers: int, ahead: int = 2
) -> Iterator[tuple[DecodeJob, Decoded | MediaError]]:
    """Yield the clips of each job in the order of the jobs; a file's error takes the place of its remaining clips.

    Args:
        jobs: taken lazily.
        workers: threads, each decoding one file.
        ahead: clips that each of them may finish before they are wanted: at most workers * (ahead + 1) finished clips
            are in memory, and what decoding holds.

    Raises:
        Exception: anything but a MediaError that decoding raises, when its turn comes.
    """
    stop = threading.Event()
    waiting = iter(jobs)
    running: deque[_Worker] = deque()
    try:
        while True:
            while len(running) < max(1, workers) and (job := next(waiting, None)) is not None:
                running.append(_Worker(job, ahead, stop))
            if not running:
                return
            worker = running[0]
            while (result := worker.results.get()) is not None:
                if isinstance(result, BaseException) and not isinstance(result, MediaError):
                    raise result
                yield worker.job, result
            running.popleft()
    finally:
        stop.set()
        for worker in running:
            worker.thread.join()


class _Worker:
    """One thread on one file. Its queue is bounded, so a fast decoder waits."""

    def __init__(self, job: DecodeJob, ahead: int, stop: threading.Event) -> None:
        self.job = job
        self.results: queue.Queue[Decoded | BaseException | None] = queue.Queue(maxsize=max(1, ahead))
        self._stop = stop
        self.thread = threading.Thread(target=self._run, name=f"decode {job.path.name}", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        job = self.job
        try:
            for result in read_clips(job.path, job.kind, job.clips, job.dataset, job.info):
                if not self._put(result):
                    return
        except BaseException as error:  # handed to the caller, whose thread can deal with it
            self._put(error)
        self._put(None)

    def _put(self, result: Decoded | BaseException | None) -> bool:
        while not self._stop.is_set():
            try:
                self.results.put(result, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False
