"""Masks: pictures beside a clip, whose grey says how much each place counts in the loss. Which files they are.

`walk.mask.png` or `walk.mask.mp4` is the mask of `walk.mp4`, and `walk.mask/` is one, too: a folder of images. An image
holds for all frames of a clip. Of a video, frame i is the mask of frame i of the clip, whatever the times in its file:
masks are made frame by frame. A mask's size may be another than its clip's, but not its aspect.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from unicodedata import normalize

from hv15.data.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, MediaError, MediaInfo, MediaKind

MARK = ".mask"
"""What a mask's name has after that of its clip."""


def mask_stem(name: str) -> str | None:
    """Return the name of the clip, without its suffix, that a file or folder is the mask of; None if it is no mask."""
    stem, dot, suffix = name.rpartition(".")
    suffix = dot + suffix.lower()
    if suffix == MARK:
        return stem or None
    if suffix not in IMAGE_SUFFIXES and suffix not in VIDEO_SUFFIXES:
        return None
    return stem[: -len(MARK)] or None if stem.lower().endswith(MARK) else None


def mask_kind(place: str) -> MediaKind:
    """Return the kind of the medium that a mask is, by its name."""
    suffix = os.path.splitext(place)[1].lower()  # noqa: PTH122 (as for Source.place)
    if suffix in IMAGE_SUFFIXES:
        return "image"
    return "video" if suffix in VIDEO_SUFFIXES else "frames"


class FolderMasks:
    """The masks in one folder, by the names of their clips.

    Args:
        names: of all that is in the folder.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._found: dict[str, list[str]] = {}
        self.names: set[str] = set()
        """Of the masks themselves."""
        for name in names:
            if MARK in name.lower() and name[0] != "." and (stem := mask_stem(name)) is not None:
                self._found.setdefault(normalize("NFC", stem), []).append(name)
                self.names.add(name)

    def of(self, stem: str) -> list[str]:
        """Return the names of the masks of the clip `stem`, in whatever form its accents are."""
        return sorted(self._found.get(normalize("NFC", stem), ())) if self._found else []

    def without(self, stems: Iterable[str]) -> list[str]:
        """Return the names of masks of none of these clips."""
        if not self._found:
            return []
        known = {normalize("NFC", stem) for stem in stems}
        return sorted(name for stem, names in self._found.items() if stem not in known for name in names)


def check_mask(mask: MediaInfo, clip: MediaInfo) -> None:
    """Check that a mask has its clip's shape and length.

    Raises:
        MediaError: it has not.
    """
    across, along = mask.width * clip.height, mask.height * clip.width
    if abs(across - along) > max(clip.height, clip.width):  # by more than a pixel
        raise MediaError(
            mask.path,
            f"a mask of {mask.width}x{mask.height} pixels, but {clip.path.name} has {clip.width}x{clip.height}; "
            "expected the same aspect ratio",
            hint="make the mask from the clip's own frames; it may be smaller or larger as a whole",
        )
    frames, expected = len(mask.timeline.times), len(clip.timeline.times)
    if mask.kind != "image" and frames != expected:
        raise MediaError(
            mask.path,
            f"a mask of {frames} frames, but {clip.path.name} has {expected}; expected as many",
            hint="make a frame of the mask for each frame of the clip, or use one image for all of them",
        )
