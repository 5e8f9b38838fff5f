"""Bucket sizes against a table worked out by hand from the formula that musubi's users know."""

from __future__ import annotations

import pytest

from hv15.data.buckets import bucket_sizes, choose_bucket, cover_size
from hv15.errors import UserError


def test_the_table_of_256_squared() -> None:
    """s = 256; w = 128, 144, ... 256 (below 272); h = 65536 // w rounded down to 16; each also turned."""
    by_hand = [
        (128, 512),
        (144, 448),
        (160, 400),
        (176, 368),
        (192, 336),
        (208, 304),
        (224, 288),
        (240, 272),
        (256, 256),
    ]
    assert bucket_sizes(256, 256) == tuple(sorted({*by_hand, *((h, w) for w, h in by_hand)}))


def test_the_table_of_960_by_544() -> None:
    """s = isqrt(522240) = 722; w from 352 (722 // 2 = 361) to below 738: 352 ... 736; 736 gives h = 704."""
    sizes = bucket_sizes(960, 544)
    assert {(352, 1472), (1472, 352), (544, 960), (960, 544), (720, 720), (736, 704), (704, 736)} <= set(sizes)
    assert (704, 736) in sizes
    assert min(width for width, _ in sizes) == 352
    assert max(width for width, _ in sizes) == 1472
    assert all(width % 16 == 0 == height % 16 and width * height <= 522240 for width, height in sizes)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (1080, 1920, (544, 960)),
        (1920, 1080, (960, 544)),
        (1000, 1000, (720, 720)),
        (480, 640, (624, 832)),  # 4/3: 832/624 is exact
        (300, 3000, (352, 1472)),  # more than any bucket
        (64, 64, (720, 720)),  # small pictures are enlarged
    ],
)
def test_the_nearest_aspect_wins(height: int, width: int, expected: tuple[int, int]) -> None:
    assert choose_bucket(height, width, (960, 544)) == expected


def test_a_resolution_means_its_area() -> None:
    """With buckets, the resolution's own shape does not matter, and it need not be a multiple of 16."""
    # 65500: no square of 16s fits; 240 wide by 256 high (0.94) is a little nearer to 1 than 256 by 240 (1.07)
    assert choose_bucket(100, 100, (500, 131)) == choose_bucket(100, 100, (131, 500)) == (256, 240)


def test_no_upscale_keeps_the_size_of_small_pictures() -> None:
    assert choose_bucket(300, 500, (960, 544), no_upscale=True) == (288, 496)
    assert choose_bucket(544, 960, (960, 544), no_upscale=True) == (544, 960)
    assert choose_bucket(1080, 1920, (960, 544), no_upscale=True) == (544, 960)
    with pytest.raises(UserError, match="500x15 pixels is too small"):
        choose_bucket(15, 500, (960, 544), no_upscale=True)


def test_without_buckets_everything_gets_the_resolution() -> None:
    assert choose_bucket(1920, 1080, (960, 544), enable_bucket=False) == (544, 960)
    with pytest.raises(UserError, match=r"resolution \[960, 540\]: .* expected multiples of 16") as caught:
        choose_bucket(1920, 1080, (960, 540), enable_bucket=False)
    assert "[960, 528]" in caught.value.hint


def test_the_demo_size_has_buckets() -> None:
    assert bucket_sizes(64, 64) == ((32, 128), (48, 80), (64, 64), (80, 48), (128, 32))
    assert bucket_sizes(16, 16) == ((16, 16),)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ((1080, 1920), (544, 960), (544, 967)),  # 1920 * 544 / 1080 = 967.1
        ((720, 1280), (704, 736), (704, 1252)),  # 1251.6
        ((100, 100), (64, 128), (128, 128)),
        ((544, 960), (544, 960), (544, 960)),
        ((3, 1000), (16, 16), (16, 5333)),
    ],
)
def test_cover_size(source: tuple[int, int], target: tuple[int, int], expected: tuple[int, int]) -> None:
    assert cover_size(*source, *target) == expected
