"""Decoding ahead: order, errors in their place, bounded memory, no thread left behind."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from hv15.config.datasets import DatasetSettings
from hv15.data import ahead
from hv15.data.ahead import DecodeJob, decode_ahead
from hv15.data.clips import Clip, plan_clips
from hv15.data.media import MediaError
from hv15.data.probe import probe
from tests.data.videos import make_video, numbers_of

CHUNKS = DatasetSettings(
    video_directory=".", resolution=(64, 48), enable_bucket=False, frame_extraction="chunk", target_frames=(5,)
)


def test_clips_come_in_order_and_an_error_takes_its_place(tmp_path: Path) -> None:
    jobs = []
    for number in range(6):
        path = make_video(tmp_path / f"{number}.mp4", 20 + number)
        clips = plan_clips(probe(path, "video"), CHUNKS)
        if number == 2:
            path.write_bytes(b"damaged")
        jobs.append(DecodeJob(path, "video", clips, CHUNKS, tag=number))
    results = list(decode_ahead(iter(jobs), workers=3))
    assert [job.tag for job, _ in results] == [0] * 4 + [1] * 4 + [2] + [3] * 4 + [4] * 4 + [5] * 5
    assert isinstance(results[8][1], MediaError)
    for job, result in results:
        if not isinstance(result, MediaError):
            clip, shown = result
            assert numbers_of(shown) == list(range(clip.start, clip.start + 5))
            assert job.path.name == f"{job.tag}.mp4"


def fake_jobs(count: int) -> list[DecodeJob]:
    return [DecodeJob(Path(f"{i}.mp4"), "video", [], CHUNKS, tag=i) for i in range(count)]


def endless(produced: list[int]):
    """A reader that never ends and counts what it has produced."""

    def read(*_: object):
        while True:
            produced.append(1)
            yield Clip(0, 1, 16, 16, "24"), np.zeros((1, 16, 16, 3), np.uint8)

    return read


def decoders() -> int:
    return sum(thread.name.startswith("decode") for thread in threading.enumerate())


def test_memory_is_bounded_and_threads_end_with_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    produced: list[int] = []
    monkeypatch.setattr(ahead, "read_clips", endless(produced))
    stream = decode_ahead(fake_jobs(4), workers=3, ahead=2)
    for taken in range(1, 6):
        next(stream)
        deadline = time.monotonic() + 0.05
        while time.monotonic() < deadline:
            assert len(produced) <= taken + 3 * 3
    assert decoders() == 3
    stream.close()
    assert decoders() == 0


def test_jobs_are_taken_as_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "read_clips", lambda *_: iter([(Clip(0, 1, 16, 16, "24"), None)]))
    taken: list[object] = []

    def jobs():
        for job in fake_jobs(100):
            taken.append(job.tag)
            yield job

    stream = decode_ahead(jobs(), workers=2)
    next(stream)
    assert len(taken) == 2
    assert len(list(stream)) == 99


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(ahead, "read_clips", broken)
    with pytest.raises(ZeroDivisionError):
        list(decode_ahead(fake_jobs(3), workers=2))
    assert decoders() == 0
