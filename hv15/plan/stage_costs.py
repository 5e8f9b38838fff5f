"""What each stage of a project costs on a device: its own code is run without data; memory and work are counted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from hv15.config import SampleSettings, Settings
from hv15.out_of_memory import StageName
from hv15.plan.cost import Cost
from hv15.plan.devices import Device
from hv15.plan.model_sizes import ModelSizes
from hv15.plan.stage_settings import section_of
from hv15.plan.workload import ClipBatch, Video, Workload
from hv15.precision import named_dtype

if TYPE_CHECKING:
    import torch

    from hv15.models import VAE
    from hv15.models.vae_decoding import Tiling
    from hv15.plan.transformer import Known


class StageCosts:
    """Runs the stages of a project without data, and remembers the results."""

    def __init__(self, sizes: ModelSizes, work: Workload, device: Device) -> None:
        self.sizes, self.work, self.device = sizes, work, device
        self._costs: dict[str, Cost] = {}
        self._resident: Known = {}

    def cost(self, name: StageName, settings: Settings, clips: ClipBatch) -> Cost:
        """Return what a stage needs with these settings; `clips` is the largest batch."""
        section = section_of(name, settings)
        key = json.dumps([name, section.model_dump(mode="json"), asdict(clips)], sort_keys=True, default=str)
        if key not in self._costs:
            self._costs[key] = self._run(name, settings, clips)
        return self._costs[key]

    def _run(self, name: StageName, settings: Settings, clips: ClipBatch) -> Cost:
        """Run the stage without data."""
        match name:
            case "encode latents":
                return self._encode_latents(settings, clips)
            case "encode texts":
                return self._encode_texts(settings)
            case "train":
                return self._train(settings, clips)
            case "denoise":
                return self._denoise(settings)
            case "condition":
                return self._encode_first_image(settings)
            case "decode":
                return self._decode(settings, largest_of(self.work.videos))
            case "upsample":
                return self._enlarge(settings)
            case "decode large":
                return self._decode(settings, largest_of(self.work.enlarged))

    def _encode_latents(self, settings: Settings, clips: ClipBatch) -> Cost:
        from hv15.plan.encoders import encoding, make_image_encoder, make_vae

        cache = settings.cache
        dtype = self.encoder_dtype(cache.dtype)
        vae = make_vae(self.sizes.vae, dtype, patch_conv=cache.vae_enable_patch_conv)
        vision = make_image_encoder(self.sizes.image_encoder, dtype) if self.work.task == "i2v" else None
        batch = ClipBatch(min(cache.latent_batch, self.work.clips), clips.frames, clips.height, clips.width)
        return encoding(vae, vision, batch, tile_size=cache.vae_sample_size, overlap=cache.vae_tile_overlap)

    def _encode_texts(self, settings: Settings) -> Cost:
        from hv15.plan.encoders import text_encoding

        cache = settings.cache
        dtype = self.encoder_dtype(cache.dtype, cpu=cache.text_encoder_cpu)
        batch = min(cache.text_batch, max(self.work.texts, 1))
        return text_encoding(self.sizes.text_encoder, dtype, self.work.text_tokens, batch, quantize=cache.fp8_vl)

    def _train(self, settings: Settings, clips: ClipBatch) -> Cost:
        from hv15.plan.metered_steps import PassSize
        from hv15.plan.transformer import training

        work, i2v = self.work, self.work.task == "i2v"
        size = PassSize(clips.samples, clips.latent, work.text_tokens, i2v, work.prior_share)
        measured = None
        if self.work.validation is not None:
            largest = self.work.validation.largest
            if clips != self.work.batch:  # smaller clips are smaller there, too
                largest = min(largest, replace(clips, samples=1), key=lambda clip: clip.tokens)
            measured = replace(size, samples=1, latent=largest.latent, prior_share=0.0)
        dtype = self.dtype(settings.train.dtype)
        return training(
            settings, self.sizes.dit, dtype, size, validation=measured, gpu=self.device.gpu, known=self._resident
        )

    def _denoise(self, settings: Settings) -> Cost:
        from hv15.plan.metered_steps import PassSize
        from hv15.plan.transformer import denoising
        from hv15.sample.guidance_batch import batches

        latent = largest_of(self.work.videos).latent
        return denoising(
            settings,
            self.sizes.dit,
            self.dtype(settings.sample.dtype),
            PassSize(1, latent, self.work.text_tokens, self.work.task == "i2v"),
            guided=any(video.guided for video in self.work.videos),
            batch_cfg=batches(settings.sample.guidance_batch, latent, gpu=self.device.gpu),
            gpu=self.device.gpu,
            known=self._resident,
        )

    def _encode_first_image(self, settings: Settings) -> Cost:
        from hv15.plan.encoders import encoding

        video = largest_of((*self.work.videos, *self.work.enlarged))
        return encoding(self._sampling_vae(settings), None, ClipBatch(1, 1, video.height, video.width))

    def _enlarge(self, settings: Settings) -> Cost:
        from hv15.plan.enlarging import enlarging
        from hv15.plan.metered_steps import PassSize

        latent = largest_of(self.work.enlarged).latent
        return enlarging(
            settings,
            self.sizes.sr_dit,
            self.sizes.upsampler,
            self.dtype(settings.sample.dtype),
            PassSize(1, latent, self.work.text_tokens, self.work.task == "i2v"),
            with_lora=settings.sample.sr_with_loras and bool(settings.datasets),
            gpu=self.device.gpu,
            known=self._resident,
        )

    def _decode(self, settings: Settings, video: Video) -> Cost:
        from hv15.plan.decoding import decoding

        return decoding(self._sampling_vae(settings), video.latent, _tiling(settings.sample))

    def _sampling_vae(self, settings: Settings) -> VAE:
        from hv15.plan.encoders import make_vae

        dtype, patch_conv = self.encoder_dtype(settings.sample.dtype_of_vae), settings.sample.vae_enable_patch_conv
        return make_vae(self.sizes.vae, dtype, patch_conv=patch_conv)

    def dtype(self, name: str) -> torch.dtype:
        """Return the number format of a transformer, by its setting."""
        import torch

        if name != "auto":
            return named_dtype(name)
        return torch.bfloat16 if self.device.gpu and self.device.bfloat16 else torch.float32

    def encoder_dtype(self, name: str, *, cpu: bool = False) -> torch.dtype:
        """Return the number format of an encoder or the VAE, by its setting."""
        import torch

        if name != "auto":
            return named_dtype(name)
        return torch.float16 if self.device.gpu and not cpu else torch.float32

    def waiting(self, name: StageName, settings: Settings) -> int:
        """Return the bytes of tiles that wait on the disk while the largest video is decoded."""
        from hv15.plan.decoding import waiting_bytes

        if name not in ("decode", "decode large"):
            return 0
        video = largest_of(self.work.videos if name == "decode" else self.work.enlarged)
        return waiting_bytes(self._sampling_vae(settings), video.latent, _tiling(settings.sample))


def _tiling(sample: SampleSettings) -> Tiling:
    from hv15.models.vae_decoding import Tiling

    return Tiling(sample.vae_sample_size, sample.vae_tile_overlap, sample.vae_seamless_tiles)


def largest_of(videos: Sequence[Video]) -> Video:
    """Return the video with the most pixels."""
    return max(videos, key=lambda video: video.frames * video.height * video.width)
