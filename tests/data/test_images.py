"""Images of every mode become upright 8-bit RGB."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from hv15.data import images
from hv15.data.images import image_size, read_image
from hv15.data.media import IMAGE_SUFFIXES, MediaError
from tests.data.pictures import claims, png

RAMP = np.arange(32 * 48, dtype=np.uint32).reshape(32, 48)
COLOUR = np.stack([RAMP % 256, RAMP * 3 % 256, RAMP * 7 % 256], axis=2).astype(np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    """A picture stored in any orientation is read upright."""
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


@pytest.mark.slow
def test_metadata_of_any_sensible_size_is_read_over(tmp_path: Path) -> None:
    assert read_image(Path(__file__).parent / "cases" / "text_chunk_2MB.png").shape[2] == 3
    text = b"workflow\0\0" + zlib.compress(bytes(images.MOST_TEXT - 1000))
    assert read_image(png(tmp_path / "a.png", 32, 16, (b"zTXt", text))).shape == (16, 32, 3)
    assert read_image(png(tmp_path / "b.png", 32, 16, after=(b"zTXt", text))).shape == (16, 32, 3)


@pytest.mark.slow
def test_metadata_of_no_sensible_size_is_a_limit_and_no_damage(tmp_path: Path) -> None:
    text = b"workflow\0\0" + zlib.compress(bytes(images.MOST_TEXT + 1000))
    with pytest.raises(MediaError, match=r"its metadata is too large: expected at most 64 MiB of text") as caught:
        read_image(png(tmp_path / "a.png", 32, 16, (b"zTXt", text)))
    assert "damage" not in str(caught.value)


def test_an_orientation_behind_the_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    path = png(tmp_path / "a.png", 32, 16, after=(b"eXIf", exif.tobytes()[6:]))
    assert image_size(path)[:2] == read_image(path).shape[:2] == (32, 16)


def test_a_size_is_known_without_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = png(tmp_path / "a.png", 32, 16)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    assert image_size(path) == (16, 32, False, ())


def test_a_picture_that_is_too_large_is_a_limit_and_no_damage(tmp_path: Path) -> None:
    path = claims(png(tmp_path / "a.png", 8, 8), 40_000, 40_000)
    for look in (image_size, read_image):
        with pytest.raises(
            MediaError, match="40000x40000 pixels is too large: expected at most 512 Mi pixels"
        ) as caught:
            look(path)
        assert "damage" not in str(caught.value)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "I;16"])
def test_large_pictures_are_averaged_by_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setattr(images, "LARGE", 12_000)
    monkeypatch.setattr(images, "_BAND", 16)
    colours = np.random.default_rng(3).integers(0, 256, (605, 302, 3), dtype=np.uint8)
    image = Image.fromarray(colours[..., 0].astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(colours)
    image = image if mode == "I;16" else image.quantize(8) if mode == "P" else image.convert(mode)
    if mode == "RGBA":
        image.putalpha(
            Image.fromarray(np.repeat([[255], [0]], [300, 305], axis=0).astype(np.uint8).repeat(302, axis=1))
        )
    image.save(tmp_path / "a.png")
    whole = np.asarray(image.convert("RGB") if mode != "I;16" else Image.fromarray(colours[..., 0]).convert("RGB"))
    exact = whole[:604].reshape(151, 4, 302, 3)[:, :, :300].reshape(151, 4, 75, 4, 3).mean(axis=(1, 3))
    if mode == "RGBA":
        exact[75:] = (1, 2, 3)
    shown = read_image(tmp_path / "a.png", background="#010203")
    assert shown.shape == (151, 75, 3)  # 4 x 4 are the least that come below the limit
    assert np.abs(shown - exact).max() <= 1


MEASURED = """
import re, sys
from pathlib import Path
from hv15.data.images import image_size, read_image
image_size(Path(sys.argv[1]))
shown = read_image(Path(sys.argv[1]))
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(*shown.shape[:2], shown[0, 0, 0], shown[-1, -1, 2], peak[1])
"""


def measured(path: Path) -> tuple[list[int], int]:
    """The (height, width, first, last) of a picture read in a process of its own, and that process's peak in bytes."""
    done = subprocess.run([sys.executable, "-c", MEASURED, path], capture_output=True, text=True, check=True)
    *shown, peak = map(int, done.stdout.split())
    return shown, peak * 1024


def test_a_large_jpeg_is_decoded_at_a_part_of_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = (np.arange(1632) * 256 // 1632).astype(np.uint8)
    Image.fromarray(np.broadcast_to(columns, (1224, 1632))).save(tmp_path / "a.jpg")
    decoded, draft = list[tuple[int, int]](), JpegImageFile.draft

    def noted(self: JpegImageFile, *asked: Any) -> Any:
        found = draft(self, *asked)
        decoded.append(self.size)
        return found

    monkeypatch.setattr(JpegImageFile, "draft", noted)
    monkeypatch.setattr(images, "LARGE", 600_000)
    shown = read_image(tmp_path / "a.jpg")
    assert shown.shape == (612, 816, 3)
    assert decoded == [(816, 612)]
    assert shown[0, 0, 0] < 3
    assert shown[-1, -1, 2] > 252


@pytest.mark.slow
def test_a_jpeg_of_200_megapixels(tmp_path: Path) -> None:
    columns = (np.arange(16320) * 256 // 16320).astype(np.uint8)
    Image.fromarray(np.broadcast_to(columns, (12240, 16320))).save(tmp_path / "a.jpg")
    shown, peak = measured(tmp_path / "a.jpg")
    assert shown[:2] == [6120, 8160]
    assert shown[2] < 3
    assert shown[3] > 252
    assert peak < 16320 * 12240 * 4  # Pillow's copy alone would need that, at full size


@pytest.mark.slow
def test_a_png_of_400_megapixels(tmp_path: Path) -> None:
    shown, peak = measured(png(tmp_path / "a.png", 20_000, 20_000))
    assert shown == [6666, 6666, 0, 255]
    assert peak < 400e6 * images.BYTES_PER_PIXEL + 2**30


def test_endings_do_not_matter(tmp_path: Path) -> None:
    for suffix in (".jfif", ".jpe", ".JPG"):
        Image.fromarray(COLOUR).save(tmp_path / f"a{suffix}", format="JPEG")
        assert read_image(tmp_path / f"a{suffix}").shape == (32, 48, 3)
        assert suffix.lower() in IMAGE_SUFFIXES


def test_heic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.fromarray(COLOUR).resize((96, 64))).save(tmp_path / "a.heic", quality=95)
    assert image_size(tmp_path / "a.heic")[:2] == (64, 96)
    plain = np.asarray(Image.fromarray(COLOUR).resize((96, 64)))
    assert np.abs(read_image(tmp_path / "a.heic").astype(int) - plain).mean() < 12
    shutil.copy(tmp_path / "a.heic", tmp_path / "phone.jpg")  # as some programs name them
    assert image_size(tmp_path / "phone.jpg")[:2] == (64, 96)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(MediaError, match=r"a\.heic: a HEIC picture, which needs the package pillow-heif") as caught:
        image_size(tmp_path / "a.heic")
    assert "hv15[heic]" in caught.value.hint


def test_no_other_program_is_started(tmp_path: Path) -> None:
    """Pillow would hand a PostScript file to Ghostscript, whatever its name."""
    (tmp_path / "a.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(MediaError, match="not an image"):
        image_size(tmp_path / "a.png")
