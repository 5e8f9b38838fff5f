"""Embedded ICC profiles: phones store Display P3, cameras Adobe RGB, print shops CMYK; models are trained on sRGB."""

from __future__ import annotations

import io
from functools import lru_cache

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
    profile = image.info.get("icc_profile")
    mode = _fitting_mode(image, profile) if profile else None
    transform = _transform(profile, mode) if mode else None
    if mode is None or transform is None:
        return plain if has_alpha else plain.convert("RGB")
    shown = ImageCms.applyTransform(plain if plain.mode == mode else plain.convert(mode), transform)
    assert shown is not None  # only an in-place transform gives none
    if has_alpha:
        shown.putalpha(plain.getchannel("A"))
    return shown


def profile_note(image: Image.Image) -> str | None:
    """Return what a person should know of an opened picture's profile: only that it cannot be used."""
    profile = image.info.get("icc_profile")
    if not profile or _fitting_mode(image, profile):
        return None
    return "its ICC profile is damaged or of another kind of picture: its colours are taken for sRGB"


def _fitting_mode(image: Image.Image, profile: bytes) -> str | None:
    """Return the mode in which a profile describes a picture; None if it cannot."""
    space = _space(profile)
    if (space == "CMYK") != (image.mode == "CMYK"):
        return None
    if space == "GRAY" and image.mode not in ("1", "L", "LA") and not image.mode.startswith("I"):
        return None
    return _MODES.get(space) if space else None  # many programs give grey pictures a profile for RGB


@lru_cache(maxsize=32)
def _space(profile: bytes) -> str | None:
    """Return the colour space that a profile is for; None if it is damaged."""
    try:
        return ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


@lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the way from a profile to sRGB; None if there is none, or nothing to do."""
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,  # with the black point, as browsers do
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    return None if mode != "CMYK" and _changes_nothing(transform, mode) else transform


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Try a lattice of colours, so that every profile that is sRGB by another name leaves pictures as they are."""
    steps = np.linspace(0, 255, 18).astype(np.uint8)
    lattice = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 18, 3)
    image = Image.fromarray(lattice if mode == "RGB" else lattice[..., 0])
    shown = ImageCms.applyTransform(image, transform)
    assert shown is not None
    return bool(np.abs(np.asarray(shown, int) - np.asarray(image.convert("RGB"), int)).max() <= _SAME)
