"""The contact sheet shows what the samples show, at the place where a reader looks for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hv15.data.encode import write_images, write_video
from hv15.errors import UserError
from hv15.sample.contact_sheet import DETAIL, SheetRow, draw_sheet, few_frames, mean_change, read_few, read_sample

RED, GREEN, BLUE = (200, 0, 0), (0, 160, 0), (0, 0, 180)


def plain(colour: tuple[int, int, int], frames: int = 9, height: int = 64, width: int = 64) -> np.ndarray:
    return np.broadcast_to(np.array(colour, np.uint8), (frames, height, width, 3))


def places(sheet: np.ndarray, colour: tuple[int, int, int]) -> tuple[slice, slice]:
    """Rows and columns of the smallest box that holds all of a colour."""
    y, x = np.nonzero((sheet == np.array(colour)).all(axis=-1))
    assert len(y), f"{colour} is not on the sheet"
    return slice(y.min(), y.max() + 1), slice(x.min(), x.max() + 1)


def test_a_prompt_is_a_row_and_the_lora_is_right_of_the_base() -> None:
    sheet = draw_sheet([SheetRow("one", plain(RED), plain(GREEN)), SheetRow("two", plain(BLUE))])
    (with_y, with_x), (without_y, without_x) = places(sheet, RED), places(sheet, GREEN)
    below_y, below_x = places(sheet, BLUE)
    assert with_y == without_y
    assert without_x.stop < with_x.start
    assert below_y.start > with_y.stop
    assert below_x == without_x
    assert 4 * 96 <= with_x.stop - with_x.start <= 4 * 96 + 10
    titles = sheet[: with_y.start]
    assert (titles < 128).any(), "the prompt is written above"


def test_super_resolution_is_shown_by_details_at_full_size() -> None:
    """Of the same frames: what was small, only resized, beside what was made of it."""
    small, large = plain(RED, 9, 64, 128), plain(BLUE, 9, 200, 400)
    row = SheetRow("one", small, enlarged=large)
    (before, detail), (after, made) = row.details
    assert (before, after) == ("128x64, enlarged without a model", "super resolution, 400x200")
    assert detail.shape == made.shape == (4, DETAIL, DETAIL, 3)
    sheet = draw_sheet([row, SheetRow("two", plain(GREEN))])
    y, x = places(sheet, BLUE)
    assert (y.stop - y.start, x.stop - x.start) == (DETAIL, 4 * DETAIL + 3 * 2)
    assert places(sheet, GREEN)[0].start > y.stop


def test_few_frames_are_read_as_they_would_be_chosen(tmp_path: Path) -> None:
    clip = np.stack([np.full((16, 16, 3), 20 * number, np.uint8) for number in range(12)])
    write_images(tmp_path / "one.frames", clip)
    assert (read_few(tmp_path / "one.frames") == few_frames(clip)).all()
    write_video(tmp_path / "one.mp4", clip)
    assert np.abs(read_few(tmp_path / "one.mp4").astype(int) - few_frames(clip)).max() <= 2


def test_wide_clips_and_long_prompts_have_room() -> None:
    sheet = draw_sheet([SheetRow("a word " * 60, plain(RED, 5, 48, 96)), SheetRow("still", plain(BLUE, 1))])
    y, x = places(sheet, RED)
    assert (y.stop - y.start, x.stop - x.start) == (96, 4 * 192 + 3 * 2)
    edge = sheet[:, -8:]
    assert (edge == 255).all(), "nothing is cut off at the right"
    y, x = places(sheet, BLUE)
    assert (y.stop - y.start, x.stop - x.start) == (96, 96)


def test_frames_run_from_the_first_to_the_last() -> None:
    clip = np.arange(9, dtype=np.uint8)[:, None, None, None] * np.ones((1, 16, 16, 3), np.uint8)
    assert few_frames(clip)[:, 0, 0, 0].tolist() == [0, 3, 5, 8]
    assert few_frames(clip[:2])[:, 0, 0, 0].tolist() == [0, 1]


def test_videos_and_folders_of_images_are_read(tmp_path: Path) -> None:
    clip = np.stack([np.full((16, 16, 3), 20 * number, np.uint8) for number in range(12)])  # 10.png follows 9.png
    write_images(tmp_path / "one.frames", clip)
    assert (read_sample(tmp_path / "one.frames") == clip).all()
    write_video(tmp_path / "one.mp4", clip)
    shown = read_sample(tmp_path / "one.mp4")
    assert shown.shape == clip.shape
    assert np.abs(shown.astype(int) - clip).max() <= 2
    with pytest.raises(UserError, match=r"two\.mp4"):
        read_sample(tmp_path / "two.mp4")


def test_change_is_the_mean_difference_of_pairs() -> None:
    rows = [
        SheetRow("one", plain((10, 10, 10)), plain((13, 13, 13))),
        SheetRow("two", plain((10, 10, 10)), plain((5, 10, 10))),
        SheetRow("alone", plain(RED)),
    ]
    assert "of 2 samples by 2.3 of 255" in mean_change(rows)
    assert mean_change(rows[2:]) == ""


def test_nothing_to_show_is_said() -> None:
    with pytest.raises(UserError, match="no samples"):
        draw_sheet([])
