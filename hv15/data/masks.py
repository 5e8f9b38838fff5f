"""Masks: pictures beside a clip, whose grey says how much each place counts in the loss.

- `walk.mask.png` or `walk.mask.mp4` is the mask of `walk.mp4`, and `walk.mask/` is one, too: a folder of images. White
  counts 1, black 0; colours count as their luma (ITU-R BT.601), transparent pixels as black.
- An image holds for all frames of a clip. Of a video, frame i is the mask of frame i of the clip, whatever the times in
  its file: masks are made frame by frame.
- A mask is resized and cropped as its clip. Its size may be another, but not its aspect.
- A latent position covers 16 x 16 pixels and, after the first frame, 4 frames. It counts as the mean of what it covers.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING
from unicodedata import normalize

from hv15.data.clips import Clip, timeline_of
from hv15.data.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, MediaError, MediaInfo, MediaKind
from hv15.grid import FRAMES_PER_CELL, PIXELS_PER_CELL

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hv15.config.datasets import DatasetSettings
    from hv15.data.pixels import Pixels

    Weights = NDArray[np.float32]

MARK = ".mask"
"""What a mask's name has after that of its clip."""
_LUMA = (299, 587, 114)
"""Thousandths of red, green and blue in the luma of BT.601."""


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


def read_weights(
    mask: MediaInfo, clip: MediaInfo, clips: Sequence[Clip], dataset: DatasetSettings
) -> Iterator[tuple[Clip, Weights]]:
    """Yield each clip with the weights of its latent positions, fp32 [F', H/16, W/16], from 0 to 1.

    Args:
        mask, clip: what the two files show.
        clips: from `plan_clips` of the clip's file.
        dataset: the clip's settings.

    Raises:
        MediaError: the mask does not fit the clip, cannot be decoded, or ends early.
    """
    import numpy as np

    from hv15.data.decode import read_clips, resized
    from hv15.data.images import read_image
    from hv15.data.pixels import Fitter

    check_mask(mask, clip)
    if mask.kind == "image":
        picture = read_image(mask.path)
        for each in clips:
            fitter = Fitter((each.height, each.width))
            still = latent_weights(grey(resized(mask.path, lambda fitter=fitter: fitter.image(picture))[None]))  # type: ignore[misc]
            yield each, np.repeat(still, (each.frames - 1) // FRAMES_PER_CELL + 1, axis=0)
        return
    windows = {replace(each, background=""): each for each in clips}  # transparent pixels of a mask are black
    timeline = timeline_of(clip, dataset)
    for window, pixels in read_clips(mask.path, mask.kind, list(windows), dataset, mask, timeline):
        yield windows[window], latent_weights(grey(pixels))


def grey(pixels: Pixels) -> Weights:
    """Return the luma of RGB pixels [F, H, W, 3] as fp32 [F, H, W], from 0 to 1."""
    import numpy as np

    thousands = pixels.astype(np.int32) @ np.array(_LUMA, dtype=np.int32)
    return (thousands / np.float32(255_000)).astype(np.float32)


def latent_weights(weights: Weights) -> Weights:
    """Return the mean of what each latent position covers: [4k+1, H, W] -> [k+1, H/16, W/16]."""
    import numpy as np

    frames, height, width = weights.shape
    cells = weights.reshape(frames, height // PIXELS_PER_CELL, PIXELS_PER_CELL, width // PIXELS_PER_CELL, -1)
    of_frames = cells.mean((2, 4), dtype=np.float64)
    later = of_frames[1:].reshape(-1, FRAMES_PER_CELL, *of_frames.shape[1:]).mean(1)
    return np.concatenate([of_frames[:1], later]).astype(np.float32)
