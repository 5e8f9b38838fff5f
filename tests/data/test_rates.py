"""Which source frame each frame of a clip shows, for every usual rate and kind of extraction, read from the pixels."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from hv15.config.datasets import DatasetSettings
from hv15.data.clips import plan_clips
from hv15.data.decode import read_clips
from hv15.data.probe import probe
from tests.data.videos import copy_packets, make_video, numbers_of

FRAMES = 100

FIRST_13 = {  # of a clip at 24 fps
    Fraction(12): (0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6),
    Fraction(12000, 1001): (0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6),
    Fraction(15): (0, 0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 6, 7),
    Fraction(24000, 1001): (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12),
    Fraction(24): (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12),
    Fraction(25): (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12),
    Fraction(30000, 1001): (0, 1, 2, 3, 4, 6, 7, 8, 9, 11, 12, 13, 14),
    Fraction(30): (0, 1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13, 15),
    Fraction(48000, 1001): (0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24),
    Fraction(48): (0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24),
    Fraction(50): (0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 25),
    Fraction(60000, 1001): (0, 2, 4, 7, 9, 12, 14, 17, 19, 22, 24, 27, 29),
    Fraction(60): (0, 2, 5, 7, 10, 12, 15, 17, 20, 22, 25, 27, 30),
    Fraction(72000, 1001): (0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 33, 36),
}

EXTRACTIONS = {
    "head": {"target_frames": [13]},
    "chunk": {"target_frames": [9]},
    "slide": {"target_frames": [9], "frame_stride": 7},
    "uniform": {"target_frames": [9], "frame_sample": 4},
    "full": {"max_frames": 201},
}


def shown_at(second_24th: int, rate: Fraction) -> int:
    """The rule: whole multiples of 24 (x 1000/1001) give every k-th frame, all other rates follow the clock."""
    whole = {12: Fraction(1, 2), 24: Fraction(1), 48: Fraction(2), 72: Fraction(3)}.get(round(rate))
    return int(second_24th * (whole or rate / 24))


@pytest.mark.parametrize("rate", FIRST_13, ids=lambda rate: f"{float(rate):.3f}")
def test_the_rule_is_the_table(rate: Fraction) -> None:
    assert tuple(shown_at(i, rate) for i in range(13)) == FIRST_13[rate]


CONTAINERS = ("a.mp4", "a.mkv", "a.ts", "a.avi", "copied.mp4")
TELLING = (*map(Fraction, (12, 25, 30, 50)), *(Fraction(rate, 1001) for rate in (24000, 30000, 60000, 72000)))
"""Whole multiples of 24, and rates that follow the clock."""


@pytest.mark.parametrize(
    ("rate", "name"),
    [
        pytest.param(
            *(rate, name),
            id=f"{float(rate):.3f}-{name}",
            marks=() if rate == 30 or (name == "a.mp4" and rate in TELLING) else pytest.mark.slow,
        )
        for rate in FIRST_13
        for name in CONTAINERS
    ],
)
def test_every_extraction_shows_the_frames_of_the_table(tmp_path: Path, rate: Fraction, name: str) -> None:
    """A copy from Matroska keeps times in milliseconds, on a finer clock."""
    made = tmp_path / ("a.mkv" if name == "copied.mp4" else name)
    path = make_video(made, FRAMES, rate, options={"bf": "2", "g": "12"})
    if name == "copied.mp4":
        path = copy_packets(made, tmp_path / name)
    check_extractions(path, lambda i: shown_at(i, rate), FRAMES)


def check_extractions(path: Path, source: Callable[[int], int], frames: int) -> None:
    info = probe(path, "video")
    for extraction, settings in EXTRACTIONS.items():
        fixed = {"video_directory": ".", "resolution": (64, 48), "enable_bucket": False}
        chosen = DatasetSettings.model_validate({**fixed, "frame_extraction": extraction, **settings})
        clips = plan_clips(info, chosen)
        assert {"head": 1, "full": 1, "uniform": 4}.get(extraction, len(clips)) == len(clips) > 0
        for clip, shown in read_clips(path, "video", clips, chosen, info):
            expected = [source(clip.start + i) for i in range(clip.frames)]
            assert max(expected) < frames
            assert numbers_of(shown) == expected, extraction


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_variable_rate_shows_what_is_on_the_screen(tmp_path: Path, suffix: str) -> None:
    """Stretches of 15, 60 and 24 fps and a still frame of half a second, as from a phone."""
    steps = [Fraction(1, 15)] * 10 + [Fraction(1, 60)] * 40 + [Fraction(1, 2)] + [Fraction(1, 24)] * 19
    times = [sum(steps[:i], Fraction(0)) for i in range(70)]
    base = Fraction(1, 1000) if suffix == "mkv" else Fraction(1, 600)
    path = make_video(tmp_path / f"a.{suffix}", 70, times=times, time_base=base)
    written = [round(time / base) * base for time in times]
    check_extractions(path, lambda i: max(k for k, time in enumerate(written) if time <= Fraction(i, 24)), 70)


@pytest.mark.parametrize("rate", [23.976, 23.98, 24.0, 47.952, 11.988])
def test_a_stated_rate_is_taken_alike(tmp_path: Path, rate: float) -> None:
    path = make_video(tmp_path / "a.mp4", 60, 30)
    chosen = DatasetSettings(
        video_directory=".",
        resolution=(64, 48),
        enable_bucket=False,
        frame_extraction="full",
        max_frames=201,
        source_fps=rate,
    )
    ((_, shown),) = read_clips(path, "video", plan_clips(probe(path, "video"), chosen), chosen)
    assert numbers_of(shown)[:13] == list(FIRST_13[Fraction(round(rate / 12) * 12)])
