"""The published models of super resolution: what they enlarge, and the official settings for it. No torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hv15.choices import EnlargedResolution, Resolution
from hv15.errors import UserError
from hv15.models.layouts import looks_like
from hv15.models.weights.checkpoint import Checkpoint
from hv15.records.json_values import RecordError, parse_object

NOISE = 0.7
"""The share of noise in the low-resolution latents, and the noise level below which the model is not given them."""


@dataclass(frozen=True)
class SuperResolution:
    """A transformer with its latent upsampler, and the official program's settings."""

    resolution: EnlargedResolution
    """That of the enlarged video."""
    low: Resolution
    """That of the videos it was made for."""
    infer_steps: int
    flow_shift: float = 2.0
    guidance_scale: float = 1.0
    """Off: the transformer is distilled."""

    @property
    def name(self) -> str:
        """The folder of both models in the official repository."""
        return f"{self.resolution}_sr_distilled"


SUPER_RESOLUTIONS: dict[EnlargedResolution, SuperResolution] = {
    "720p": SuperResolution("720p", "480p", 6),
    "1080p": SuperResolution("1080p", "720p", 8),
}

UPSAMPLER_HINT = (
    "set models.upsampler to the folder upsampler/720p_sr_distilled or upsampler/1080p_sr_distilled of a download, "
    "or to ComfyUI's hunyuanvideo15_latent_upsampler_720p or _1080p file"
)

_NAMED = re.compile(r"(?<!\d)(720|1080)p[-_ .]sr(?![a-z0-9])", re.IGNORECASE)


def upsampler_resolution(checkpoint: Checkpoint) -> EnlargedResolution:
    """Return the resolution that a latent upsampler is for; the two networks have tensors of their own.

    Raises:
        UserError: it is another model.
    """
    if "in_conv.conv.weight" in checkpoint:
        return "720p"
    if "conv_in.conv.weight" in checkpoint and "up.0.block.0.conv1.conv.weight" in checkpoint:
        return "1080p"
    found = f"not a latent upsampler: it looks like {looks_like(checkpoint.keys())}"
    raise UserError.at(checkpoint.path, found, hint=UPSAMPLER_HINT)


def named_resolution(path: Path) -> EnlargedResolution | None:
    """Return the resolution that a transformer's config.json, or else its path, names; None if they name none.

    The two transformers have the same tensors.
    """
    folder = path if path.is_dir() else path.parent
    try:
        ideal = parse_object((folder / "config.json").read_bytes()).get("ideal_resolution")
    except (OSError, RecordError):
        ideal = None  # a faulty config.json is reported when the model is loaded
    names = [match[1] for part in reversed(path.parts) if (match := _NAMED.search(part))]
    for resolution in SUPER_RESOLUTIONS:
        if ideal == resolution or (ideal not in SUPER_RESOLUTIONS and f"{(names or [''])[0]}p" == resolution):
            return resolution
    return None
