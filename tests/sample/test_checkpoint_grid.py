"""The sheet and the video of all checkpoints: what stands where, and that all clips play together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hv15.data.encode import write_images
from hv15.data.pixels import Pixels
from hv15.errors import UserError
from hv15.sample.checkpoint_grid import (
    HIGHEST,
    NARROWEST,
    WIDEST,
    GridLine,
    draw_film,
    draw_grid,
    film_scale,
    read_line,
)
from hv15.sample.contact_sheet import GAP, LINE, MARGIN

LABELS = ["no LoRA", "step 90"]


def clip(*greys: int, height: int = 64, width: int = 128) -> Pixels:
    """A clip whose frames have these greys."""
    return np.stack([np.full((height, width, 3), grey, np.uint8) for grey in greys])


def test_a_row_for_each_prompt_and_a_column_for_each_step() -> None:
    lines = [
        GridLine("a cat", (clip(10, 20), clip(30, 40)), 8.0),
        GridLine("a dog", (clip(50, 60), clip(70, 80)), 8.0),
    ]
    film, fps = draw_film(lines, LABELS)
    assert (film.shape[0], fps) == (2, 8.0)
    for row, column, grey in ((0, 0, 20), (0, 1, 40), (1, 0, 60), (1, 1, 80)):
        top = MARGIN + LINE + GAP // 2 + row * (LINE + 64 + GAP) + LINE
        left = MARGIN + column * (128 + GAP)
        cell = film[1, top : top + 64, left : left + 128]
        assert (cell == grey).all(), (row, column)
    sheet = draw_grid(lines, LABELS)
    assert {10, 20, 50, 80} <= set(np.unique(sheet))


def test_clips_of_different_rates_and_lengths_play_in_the_same_time() -> None:
    lines = [GridLine("slow", (clip(1, 2),), 4.0), GridLine("fast", (clip(11, 12, 13, 14, 15, 16),), 8.0)]
    film, fps = draw_film(lines, ["step 1"])
    shown = [sorted({int(grey) for grey in np.unique(frame) if grey < 20}) for frame in film]
    assert fps == 8.0
    assert shown == [[1, 11], [1, 12], [2, 13], [2, 14], [2, 15], [2, 16]]  # the shorter one stands still at its end


def test_sides_of_the_video_are_even() -> None:
    film, _ = draw_film([GridLine("odd", (clip(1, height=33, width=131),), 8.0)], ["step 1"])
    assert [side % 2 for side in film.shape[1:3]] == [0, 0]


@pytest.mark.parametrize(
    ("sizes", "columns", "scale"),
    [
        ([(480, 848)], 2, 1.0),
        ([(64, 64)], 3, NARROWEST / 64),
        ([(480, 848)] * 8, 6, (HIGHEST - 2 * MARGIN - 8 * (LINE + GAP) - LINE - GAP // 2) / (8 * 480)),
        ([(480, 848)], 9, ((WIDEST - 2 * MARGIN) / 9 - GAP) / 848),
    ],
)
def test_large_videos_are_reduced_and_tiny_ones_enlarged(
    sizes: list[tuple[int, int]], columns: int, scale: float
) -> None:
    assert film_scale(sizes, columns) == pytest.approx(scale)


def test_a_long_prompt_is_cut() -> None:
    line = GridLine("a very long prompt " * 50, (clip(1),), 8.0)
    assert draw_grid([line], ["step 1"]).shape[1] == 2 * MARGIN + 96 * 2


def test_samples_are_read_and_resized(tmp_path: Path) -> None:
    write_images(tmp_path / "a.frames", clip(100, 200), {})
    write_images(tmp_path / "b.frames", clip(50, height=32), {})
    line = read_line("a", [tmp_path / "a.frames"], 8.0, 0.5)
    assert [each.shape for each in line.clips] == [(2, 32, 64, 3)]
    assert [frame.mean() for frame in line.clips[0]] == [100, 200]
    with pytest.raises(UserError, match="different sizes"):
        read_line("a", [tmp_path / "a.frames", tmp_path / "b.frames"], 8.0, 1.0)
