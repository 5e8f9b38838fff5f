"""What a sample is becoming while it is denoised: now and then a small video of the clean video that is predicted.

At noise level s the model's velocity v predicts the clean latents x - s*v. A linear map gives their colors
(`hv15.sample.latent_colors`). Nothing here draws from a random state or changes what is denoised.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from hv15.data.encode import write_video
from hv15.data.pixels import Pixels
from hv15.errors import UserError
from hv15.grid import FRAMES_PER_CELL
from hv15.models.latents import unscale
from hv15.models.vae_pixels import to_bytes
from hv15.records.metadata import SAMPLE, SAMPLE_STEP
from hv15.records.outputs import running_preview
from hv15.sample.latent_colors import LatentColors
from hv15.sample.prompts import SampleSpec

log = logging.getLogger(__name__)

_SIDE = 320
"""About the longer side of a preview in pixels."""


class SampleWatcher(Protocol):
    """Is shown what a sample becomes."""

    def is_due(self, step: int) -> bool:
        """Whether it wants to see the clean latents after so many steps."""

    def show(self, step: int, clean: Tensor) -> None:
        """Take the predicted clean latents, scaled, [B, C, F', h, w]."""


@dataclass
class RunningPreview:
    """Writes the previews of one sample, each in the place of the one before."""

    file: Path
    spec: SampleSpec
    colors: LatentColors
    every: int
    """Steps between previews."""
    _failed: bool = False

    def is_due(self, step: int) -> bool:
        return not self._failed and step % self.every == 0 and step < self.spec.steps

    def show(self, step: int, clean: Tensor) -> None:
        """Write the preview of scaled latents [1, C, F', h, w].

        A problem is logged, and no more is written: it must not end a sample.
        """
        try:
            metadata = {SAMPLE: self.spec.to_text(), SAMPLE_STEP: str(step)}
            write_video(self.file, small_video(self.colors, clean), self.spec.fps / FRAMES_PER_CELL, metadata)
        except (UserError, OSError) as error:
            self._failed = True
            log.warning("%s: no more previews: %s", self.spec.name, error)


@torch.no_grad()
def small_video(colors: LatentColors, clean: Tensor) -> Pixels:
    """Return scaled latents [1, C, F', h, w] in color: uint8 [F', H, W, 3], H and W even."""
    pixels = colors.pixels(unscale(clean))[0].transpose(0, 1).float().cpu()  # (F', 3, h, w)
    times = 2 * max(1, _SIDE // (2 * max(pixels.shape[-2:])))
    larger = interpolate(pixels, scale_factor=times, mode="bilinear", align_corners=False)
    return to_bytes(larger.transpose(0, 1)[None])[0].numpy()


@dataclass(frozen=True)
class RunningPreviews:
    """Previews of samples, if they are wanted."""

    colors: LatentColors | None
    """None: there are no previews."""
    every: int = 1

    @contextmanager
    def of(self, spec: SampleSpec, folder: Path) -> Iterator[RunningPreview | None]:
        """Yield what watches a sample whose results are in a folder; in the end its preview is removed."""
        if self.colors is None:
            yield None
            return
        file = running_preview(folder, spec.name)
        try:
            yield RunningPreview(file, spec, self.colors, self.every)
        finally:
            with suppress(OSError):
                file.unlink(missing_ok=True)
                file.parent.rmdir()  # unless other samples are running
