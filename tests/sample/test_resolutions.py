from __future__ import annotations

import json
from pathlib import Path

import pytest

from hv15.errors import UserError
from hv15.sample.resolutions import BASES, official_size, official_sizes, parse_size

OFFICIAL = json.loads(Path(__file__).with_name("resolution_buckets.json").read_text())
"""Written by the official program."""


@pytest.mark.parametrize("case", OFFICIAL, ids=lambda case: f"{case['resolution']}-{case['origin_wh']}")
def test_sizes_are_those_of_the_official_program(case: dict[str, object]) -> None:
    width, height = case["origin_wh"]  # type: ignore[misc]
    assert official_size(case["resolution"], width, height) == (case["height"], case["width"])  # type: ignore[arg-type]


@pytest.mark.parametrize("resolution", BASES)
def test_no_size_has_more_cells_than_the_square(resolution: str) -> None:
    sizes = official_sizes(resolution)  # type: ignore[arg-type]
    most = BASES[resolution] ** 2  # type: ignore[index]
    assert all(height * width <= most and height % 16 == width % 16 == 0 for height, width in sizes)
    assert (BASES[resolution], BASES[resolution]) in sizes  # type: ignore[index]
    assert set(sizes) == {(width, height) for height, width in sizes}


@pytest.mark.parametrize(
    ("words", "size"),
    [("720p 16:9", (720, 1280)), ("480p", (480, 848)), ("480 848", (480, 848)), ("720p 1:1", (960, 960))],
)
def test_words_of_a_size(words: str, size: tuple[int, int]) -> None:
    assert parse_size(tuple(words.split())) == size


@pytest.mark.parametrize(
    "words",
    [
        "7p",
        "720p 16",
        "720p 0:9",
        "720p a:b",
        "480",
        "480 x",
        "480 848 3",
        "-1 2",
        "720p 16:9 x",
        f"720p {'9' * 5000}:9",
    ],
)
def test_other_words_are_refused(words: str) -> None:
    with pytest.raises(UserError, match=r"--size .*expected a resolution"):
        parse_size(tuple(words.split()))


def test_a_ratio_beyond_the_official_ones_is_refused() -> None:
    assert parse_size(("720p", "4:1"))[1] == 4 * parse_size(("720p", "4:1"))[0]
    with pytest.raises(UserError, match="/size 720p 99:1: official sizes have an aspect ratio of at most 4:1"):
        parse_size(("720p", "99:1"), "/size")
