"""Pictures with an embedded profile are shown in sRGB, compared with the standards' own formulas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from hv15.data.images import image_size, read_image
from tests.data.profiles import (
    ADOBE,
    ADOBE_GAMMA,
    INKS,
    P3,
    SRGB,
    cmyk_profile,
    grey_profile,
    rgb_profile,
    srgb_curve,
    srgb_of_lab,
    srgb_of_xyz,
)

RAMP = np.linspace(0, 1, 4096)
COLOURS = np.random.default_rng(4).integers(0, 256, (24, 36, 3), dtype=np.uint8)

PROFILES = {
    "Display P3": (rgb_profile(P3, srgb_curve(RAMP)), P3, srgb_curve),
    "Adobe RGB": (rgb_profile(ADOBE, RAMP**ADOBE_GAMMA), ADOBE, lambda value: value**ADOBE_GAMMA),
}


def expected(name: str, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    _, matrix, curve = PROFILES[name]
    return srgb_of_xyz(curve(pixels / 255) @ matrix.T)


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("name", PROFILES)
def test_wide_colours_become_srgb(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(COLOURS).save(
        path, icc_profile=PROFILES[name][0], **({"lossless": True} if suffix == "webp" else {})
    )
    error = np.abs(read_image(path) - expected(name, COLOURS))
    assert error.max() < 2.5
    assert error.mean() < 0.5
    assert np.abs(COLOURS - expected(name, COLOURS)).mean() > 4
    assert image_size(path).notes == ()


def test_a_phones_jpeg(tmp_path: Path) -> None:
    """A P3 red of 200 is more saturated than its numbers say."""
    path = tmp_path / "a.jpg"
    patch = np.full((32, 32, 3), (200, 60, 50), np.uint8)
    Image.fromarray(patch).save(path, icc_profile=PROFILES["Display P3"][0], quality=100, subsampling=0)
    assert np.abs(read_image(path) - expected("Display P3", patch)).max() < 4
    assert read_image(path)[0, 0, 0] > 210


def test_transparency_is_kept(tmp_path: Path) -> None:
    alpha = np.full((24, 36, 1), 255, np.uint8)
    alpha[:, 18:] = 0
    Image.fromarray(np.concatenate([COLOURS, alpha], axis=2)).save(
        tmp_path / "a.png", icc_profile=PROFILES["Adobe RGB"][0]
    )
    shown = read_image(tmp_path / "a.png", background="#102030")
    assert np.abs(shown[:, :18] - expected("Adobe RGB", COLOURS[:, :18])).max() < 2.5
    assert (shown[:, 18:] == (16, 32, 48)).all()


def test_palettes_and_grey(tmp_path: Path) -> None:
    palette = Image.fromarray(COLOURS).quantize(16)
    plain = np.asarray(palette.convert("RGB"))
    palette.save(tmp_path / "p.png", icc_profile=PROFILES["Display P3"][0])
    assert np.abs(read_image(tmp_path / "p.png") - expected("Display P3", plain)).max() < 2.5
    grey = Image.fromarray(COLOURS[..., 0])
    three = np.repeat(COLOURS[..., :1], 3, axis=2)
    for name, image in (
        ("g.png", grey),
        ("la.png", grey.convert("LA")),
        ("g16.png", Image.fromarray(COLOURS[..., 0].astype(np.uint16) * 257)),
    ):
        image.save(tmp_path / name, icc_profile=grey_profile(RAMP**1.8))
        light = np.repeat((three[..., :1] / 255) ** 1.8, 3, axis=2) * np.array([0.9642, 1.0, 0.8249])
        assert np.abs(read_image(tmp_path / name) - srgb_of_xyz(light)).max() < 2.5, name
    grey.save(tmp_path / "rgb.png", icc_profile=PROFILES["Adobe RGB"][0])  # as many programs write it
    assert np.abs(read_image(tmp_path / "rgb.png") - expected("Adobe RGB", three)).max() < 2.5


def test_cmyk_is_printed_on_the_screen(tmp_path: Path) -> None:
    solids = np.array([[round(2.55 * ink) for ink in inks] for inks in INKS], np.uint8)
    picture = Image.fromarray(np.repeat(solids[None], 8, axis=0).repeat(8, axis=1), "CMYK")
    white = srgb_of_lab(INKS[0, 0, 0, 0])
    for suffix, options in (("tif", {}), ("jpg", {"quality": 100, "subsampling": 0})):
        path = tmp_path / f"a.{suffix}"
        picture.save(path, icc_profile=cmyk_profile(), **options)
        shown = read_image(path)[4, 4::8].astype(int)
        for colour, lab in zip(shown, INKS.values(), strict=True):
            assert np.abs(colour - srgb_of_lab(lab)).max() < 12, (
                suffix,
                lab,
            )  # paper and black are made white and black
        assert np.abs(shown[0] - white).max() < 12
    naive = np.asarray(picture.convert("RGB"))[4, 4::8].astype(int)
    assert np.abs(naive[1] - srgb_of_lab(INKS[100, 0, 0, 0])).max() > 30


def test_srgb_by_any_name_changes_nothing(tmp_path: Path) -> None:
    for number, profile in enumerate(
        [ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), rgb_profile(SRGB, srgb_curve(RAMP))]
    ):
        path = tmp_path / f"{number}.png"
        Image.fromarray(COLOURS).save(path, icc_profile=profile)
        assert (read_image(path) == COLOURS).all()


@pytest.mark.parametrize("profile", [b"no profile", PROFILES["Adobe RGB"][0][:300], cmyk_profile(), grey_profile(RAMP)])
def test_a_profile_that_cannot_be_used_is_said(tmp_path: Path, profile: bytes) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(COLOURS).save(path, icc_profile=profile)
    assert (read_image(path) == COLOURS).all()
    (note,) = image_size(path).notes
    assert "ICC profile" in note
