"""Memory and arithmetic of super resolution: the latent upsampler, then the steps of a transformer of its own.

The upsampler works once for each video, in chunks of frames, before the transformer is loaded. Its time is not counted:
at 1904 x 1072 pixels it has a thousandth of the operations of one step.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from hv15.config import Settings
from hv15.config.step_cache import StepCacheSettings
from hv15.models import DiTConfig
from hv15.models.upsamplers import Upsampler720, Upsampler720Config, Upsampler1080, Upsampler1080Config
from hv15.plan.cost import Cost
from hv15.plan.encoders import meter_of
from hv15.plan.kernels import WithoutData
from hv15.plan.metered_steps import PassSize
from hv15.plan.transformer import Known, denoising


def enlarging(
    settings: Settings,
    config: DiTConfig,
    upsampler: Upsampler720Config | Upsampler1080Config,
    dtype: torch.dtype,
    size: PassSize,
    *,
    with_lora: bool,
    gpu: bool = True,
    known: Known | None = None,
) -> Cost:
    """Return what a step of super resolution takes, with the peak of the upsampler if that is higher.

    Args:
        settings: of `sample:`.
        config: of the transformer of super resolution.
        size: of the large video.
        with_lora, gpu, known: see `hv15.plan.transformer.denoising`.
    """
    plain = settings.model_copy(
        update={"sample": settings.sample.model_copy(update={"step_cache": StepCacheSettings()})}
    )
    steps = denoising(plain, config, dtype, size, guided=False, with_lora=with_lora, gpu=gpu, known=known)
    before = upsampling(upsampler, size.latent)
    return steps if steps.peak >= before.peak else replace(steps, parts=before.parts)


def upsampling(config: Upsampler720Config | Upsampler1080Config, latent: tuple[int, int, int]) -> Cost:
    """Return what the latent upsampler takes for enlarged latents (frames, rows, columns), in float32."""
    with torch.device("meta"):
        network = Upsampler720(config) if isinstance(config, Upsampler720Config) else Upsampler1080(config)
    meter = meter_of(network)
    with torch.no_grad(), WithoutData(), meter:
        network(torch.empty(1, config.channels, *latent, device="meta"))
    return Cost.of(meter)
