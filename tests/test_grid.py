"""Sizes of videos and of their latents."""

from __future__ import annotations

import pytest

from hv15.grid import encodable_frames, encodable_side, latent_size, video_size


def test_frames_are_rounded_down_to_4k_plus_1() -> None:
    found = [encodable_frames(n) for n in (1, 4, 5, 8, 9, 16, 17, 120, 121, 129)]
    assert found == [1, 1, 5, 5, 9, 13, 17, 117, 121, 129]


def test_sides_are_rounded_down_to_16_pixels() -> None:
    assert [encodable_side(n) for n in (15, 16, 31, 32, 855)] == [0, 16, 16, 32, 848]


@pytest.mark.parametrize("size", [(1, 16, 16), (121, 480, 848), (17, 720, 1280)])
def test_latent_size_and_back(size: tuple[int, int, int]) -> None:
    assert video_size(*latent_size(*size)) == size


def test_the_official_sizes() -> None:
    assert latent_size(121, 720, 1280) == (31, 45, 80)
