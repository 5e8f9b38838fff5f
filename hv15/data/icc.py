"""Embedded ICC profiles: phones store Display P3, cameras Adobe RGB, print shops CMYK; models are trained on sRGB."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms

_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""Colour space of a profile to Pillow's mode of the pictures that it describes."""

_SAME = 1
"""Levels of 255 by which a profile may differ from sRGB and be taken for it: rounding alone gives that."""


def to_srgb(image: Image.Image) -> Image.Image:
    """Return a picture of any mode with its colours as sRGB: RGB, or RGBA if it has transparency.

    Without a profile, or with one that cannot be used, the numbers are taken for sRGB as they are.
    """
    has_alpha = image.has_transparency_data
    plain = image.convert("RGBA") if has_alpha else image
    profile = _profile(image)
    if profile is None or profile.transform is None:
        return plain if has_alpha else plain.convert("RGB")
    coloured = plain if plain.mode == profile.mode else plain.convert(profile.mode)
    shown = ImageCms.applyTransform(coloured, profile.transform)
    assert shown is not None  # only an in-place transform gives none
    if has_alpha:
        shown.putalpha(plain.getchannel("A"))
    return shown


def profile_note(image: Image.Image) -> str | None:
    """Return what a person should know of an opened picture's profile: only that it cannot be used."""
    if not image.info.get("icc_profile") or _profile(image):
        return None
    return "its ICC profile is damaged or of another kind of picture: its colours are taken for sRGB"


class _Profile(NamedTuple):
    """What is done by a profile that can be used."""

    mode: str
    """Pillow's mode of the pictures that it describes."""
    transform: ImageCms.ImageCmsTransform | None
    """The way to sRGB; None if there is nothing to do."""


def _profile(image: Image.Image) -> _Profile | None:
    """Return the profile of a picture; None if it has none that fits."""
    content = image.info.get("icc_profile")
    profile = _read(content) if content else None
    if profile is None or (profile.mode == "CMYK") != (image.mode == "CMYK"):
        return None
    if profile.mode == "L" and image.mode not in ("1", "L", "LA") and not image.mode.startswith("I"):
        return None
    return profile  # many programs give grey pictures a profile for RGB


@lru_cache(maxsize=32)
def _read(content: bytes) -> _Profile | None:
    """Read a profile; None if it is damaged."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
        mode = _MODES[profile.profile.xcolor_space]
        transform = ImageCms.buildTransform(
            profile,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,  # with the black point, as browsers do
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, KeyError):
        return None
    return _Profile(mode, None if mode != "CMYK" and _changes_nothing(transform, mode) else transform)


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Try a lattice of colours, so that every profile that is sRGB by another name leaves pictures as they are."""
    steps = np.linspace(0, 255, 18).astype(np.uint8)
    lattice = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 18, 3)
    image = Image.fromarray(lattice if mode == "RGB" else lattice[..., 0])
    shown = ImageCms.applyTransform(image, transform)
    assert shown is not None
    return bool(np.abs(np.asarray(shown, int) - np.asarray(image.convert("RGB"), int)).max() <= _SAME)
