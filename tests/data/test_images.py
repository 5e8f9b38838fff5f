"""Images of every mode become upright 8-bit RGB."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from hv15.data.images import image_size, read_image
from hv15.data.media import MediaError

RAMP = np.arange(32 * 48, dtype=np.uint32).reshape(32, 48)
COLOUR = np.stack([RAMP % 256, RAMP * 3 % 256, RAMP * 7 % 256], axis=2).astype(np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    """A picture stored with each orientation is shown as the upright one."""
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # Image.Transpose that stores it so
    stored = Image.fromarray(COLOUR) if undo is None else Image.fromarray(COLOUR).transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    assert (read_image(tmp_path / "a.png") == COLOUR).all()
    assert image_size(tmp_path / "a.png")[:3] == (32, 48, False)


def test_modes(tmp_path: Path) -> None:
    grey = Image.fromarray(COLOUR[..., 0])
    expected = np.repeat(COLOUR[..., :1], 3, axis=2)
    deep = Image.fromarray(COLOUR[..., 0].astype(np.uint16) * 257)
    for name, image, want in (
        ("grey.png", grey, expected),
        ("deep.png", deep, expected),
        ("deep.tif", deep, expected),
        ("palette.png", grey.convert("P"), expected),
        ("bits.png", grey.convert("1"), np.asarray(grey.convert("1").convert("RGB"))),
        ("rgb.webp", Image.fromarray(COLOUR), COLOUR),
        ("cmyk.tif", Image.fromarray(COLOUR).convert("CMYK"), COLOUR),
    ):
        image.save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
        assert np.abs(read_image(tmp_path / name).astype(int) - want).max() <= 1, name
        assert image_size(tmp_path / name)[:2] == (32, 48)


def test_transparency(tmp_path: Path) -> None:
    rgba = np.dstack([COLOUR, np.where(RAMP % 48 < 24, 255, 0).astype(np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "a.png")
    palette = Image.fromarray(np.where(RAMP % 48 < 24, 1, 0).astype(np.uint8), mode=None).convert("P")
    palette.save(tmp_path / "p.png", transparency=0)
    keyed = Image.fromarray(COLOUR)
    keyed.save(tmp_path / "k.png", transparency=(0, 0, 0))
    shown = read_image(tmp_path / "a.png", background="#0a141e")
    assert (shown[:, :24] == COLOUR[:, :24]).all()
    assert (shown[:, 24:] == (10, 20, 30)).all()
    assert (read_image(tmp_path / "p.png", background="#0a141e")[:, 24:] == (10, 20, 30)).all()
    assert (read_image(tmp_path / "k.png", background="#0a141e")[0, 0] == (10, 20, 30)).all()
    assert all(image_size(tmp_path / name)[2] for name in ("a.png", "p.png", "k.png"))


def test_resizing_and_jpeg(tmp_path: Path) -> None:
    Image.fromarray(COLOUR).resize((480, 320)).save(tmp_path / "a.jpg", quality=95)
    assert read_image(tmp_path / "a.jpg", (64, 64)).shape == (64, 64, 3)
    assert ImageOps.exif_transpose(Image.open(tmp_path / "a.jpg")).size == (480, 320)


def test_bad_images_are_named(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(COLOUR).resize((480, 320)).save(stream, format="PNG")
    (tmp_path / "cut.png").write_bytes(stream.getvalue()[: len(stream.getvalue()) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no picture")
    Image.fromarray(RAMP.astype(np.float32)).save(tmp_path / "float.tif")
    for name, message in (
        ("cut.png", "cannot be read as an image"),
        ("empty.png", "empty file"),
        ("text.jpg", "not an image"),
        ("none.png", "does not exist"),
        ("float.tif", "floating-point"),
        (".", "expected an image, found a folder"),
    ):
        with pytest.raises(MediaError, match=message):
            read_image(tmp_path / name)
