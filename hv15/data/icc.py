"""Converts pictures with an ICC profile to sRGB: phones use Display P3, cameras Adobe RGB, print shops CMYK."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms

_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""Pillow's mode for pictures in the colour space of a profile."""

_SAME = 1
"""Levels of 255 by which a profile may differ from sRGB and still be ignored: rounding alone causes as much."""


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert a picture of any mode to sRGB: RGB, or RGBA if it has transparency.

    Without a usable profile, the colours are taken to be sRGB.
    """
    has_alpha = image.has_transparency_data
    plain = image.convert("RGBA") if has_alpha else image
    profile = _profile(image)
    if profile is None or profile.transform is None:
        return plain if has_alpha else plain.convert("RGB")
    coloured = plain if plain.mode == profile.mode else plain.convert(profile.mode)
    converted = ImageCms.applyTransform(coloured, profile.transform)
    assert converted is not None  # only an in-place transform returns None
    if has_alpha:
        converted.putalpha(plain.getchannel("A"))
    return converted


def profile_note(image: Image.Image) -> str | None:
    """Return a note for the user if an opened picture's profile cannot be used, else None."""
    if not image.info.get("icc_profile") or _profile(image):
        return None
    return "its ICC profile is damaged or for another kind of picture: its colours are taken to be sRGB"


class _Profile(NamedTuple):
    """A profile that can be used."""

    mode: str
    """Pillow's mode of the pictures that it describes."""
    transform: ImageCms.ImageCmsTransform | None
    """The conversion to sRGB; None if no conversion is needed."""


def _profile(image: Image.Image) -> _Profile | None:
    """Return the profile of a picture; None if it has no usable one."""
    content = image.info.get("icc_profile")
    profile = _read(content) if content else None
    if profile is None or (profile.mode == "CMYK") != (image.mode == "CMYK"):
        return None
    if profile.mode == "L" and image.mode not in ("1", "L", "LA") and not image.mode.startswith("I"):
        return None
    return profile  # also an RGB profile for a grey picture, which many programs write


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
    """Whether a grid of colours stays the same, so that pictures in any variant of an sRGB profile are not changed."""
    steps = np.linspace(0, 255, 18).astype(np.uint8)
    lattice = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 18, 3)
    image = Image.fromarray(lattice if mode == "RGB" else lattice[..., 0])
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None
    return bool(np.abs(np.asarray(converted, int) - np.asarray(image.convert("RGB"), int)).max() <= _SAME)
