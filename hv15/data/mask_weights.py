"""Reads masks: the weights of a clip's latent positions.

- White counts 1, black 0; colours count as their luma (ITU-R BT.601), transparent pixels as black.
- A mask is cut, resized and cropped as its clip.
- A latent position covers 16 x 16 pixels and, after the first frame, 4 frames. It counts as the mean of what it covers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hv15.data.clips import Clip, timeline_of
from hv15.data.decode import read_clips, resized
from hv15.data.images import read_image
from hv15.data.masks import check_mask
from hv15.data.media import MediaInfo
from hv15.data.pixels import Fitter, Pixels
from hv15.grid import FRAMES_PER_CELL, PIXELS_PER_CELL, latent_size

if TYPE_CHECKING:
    from hv15.config.datasets import DatasetSettings

Weights = NDArray[np.float32]

_LUMA = (299, 587, 114)
"""Thousandths of red, green and blue in the luma of BT.601."""


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
    check_mask(mask, clip)
    if mask.kind == "image":
        picture = read_image(mask.path)
        for each in clips:
            fit = partial(Fitter((each.height, each.width)).image, picture)
            still = latent_weights([grey(resized(mask.path, fit))])
            yield each, np.repeat(still, latent_size(each.frames, each.height, each.width)[0], axis=0)
        return
    windows = {replace(each, background=""): each for each in clips}  # transparent pixels of a mask are black
    timeline = timeline_of(clip, dataset)
    for window, pixels in read_clips(mask.path, mask.kind, list(windows), dataset, mask, timeline):
        yield windows[window], latent_weights(map(grey, pixels))


def grey(pixels: Pixels) -> Weights:
    """Return the luma of RGB pixels [..., 3] as fp32 [...], from 0 to 1; white is exactly 1."""
    thousands = pixels.astype(np.float32) @ np.array(_LUMA, np.float32)  # whole numbers
    return thousands / np.float32(255_000)


def latent_weights(frames: Iterable[Weights]) -> Weights:
    """Return the mean of what each latent position covers: 4k+1 frames [H, W] -> [k+1, H/16, W/16]."""
    of_frames = np.stack([_cells(frame) for frame in frames])
    later = of_frames[1:].reshape(-1, FRAMES_PER_CELL, *of_frames.shape[1:]).mean(1)
    return np.concatenate([of_frames[:1], later]).astype(np.float32)


def _cells(frame: Weights) -> NDArray[np.float64]:
    """Return the mean of each 16 x 16 pixels: [H, W] -> [H/16, W/16]."""
    height, width = (side // PIXELS_PER_CELL for side in frame.shape)
    cells = frame.reshape(height, PIXELS_PER_CELL, width, PIXELS_PER_CELL)
    mean: NDArray[np.float64] = cells.mean((1, 3), dtype=np.float64)
    return mean
