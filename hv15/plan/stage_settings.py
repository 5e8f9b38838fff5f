"""Which settings, models and GPUs each stage uses."""

from __future__ import annotations

from typing import Literal, get_args

from hv15.choices import Role
from hv15.config import CacheSettings, SampleSettings, Settings, TrainSettings
from hv15.out_of_memory import StageName

STAGES: tuple[StageName, ...] = get_args(StageName)
SECTION: dict[StageName, Literal["cache", "train", "sample"]] = {
    "encode latents": "cache",
    "encode texts": "cache",
    "condition": "sample",
    "train": "train",
    "denoise": "sample",
    "decode": "sample",
    "upsample": "sample",
    "decode large": "sample",
}
"""The section with a stage's settings."""
MEMORY_SETTINGS: dict[StageName, tuple[str, ...]] = {
    "encode latents": ("vae_sample_size", "vae_enable_patch_conv", "latent_batch", "dtype"),
    "encode texts": ("fp8_vl", "text_encoder_cpu", "text_batch", "dtype"),
    "condition": ("vae_enable_patch_conv", "dtype", "vae_dtype"),
    "train": ("gradient_checkpointing", "gradient_checkpointing_cpu_offload", "blocks_to_swap", "quantize",
              "split_attn", "context_parallel", "num_processes", "shard_base", "network_dim", "optimizer_type",
              "dtype"),
    "denoise": ("blocks_to_swap", "quantize", "split_attn", "context_parallel", "guidance_batch", "dtype"),
    "decode": ("vae_sample_size", "vae_seamless_tiles", "vae_enable_patch_conv", "dtype", "vae_dtype"),
    "upsample": ("blocks_to_swap", "quantize", "split_attn", "context_parallel", "dtype"),
    "decode large": ("vae_sample_size", "vae_seamless_tiles", "vae_enable_patch_conv", "dtype", "vae_dtype"),
}  # fmt: skip
"""The settings of a stage's section that determine its memory."""
ROLES_OF_STAGE: dict[StageName, tuple[Role, ...]] = {
    "encode latents": ("vae", "image_encoder"),
    "encode texts": ("text_encoder", "glyph_encoder"),
    "condition": ("vae", "image_encoder"),
    "train": ("dit",),
    "denoise": ("dit",),
    "decode": ("vae",),
    "upsample": ("sr_dit", "upsampler"),
    "decode large": ("vae",),
}
"""The models that a stage loads, as far as its task has them."""
WITH_VAE: tuple[StageName, ...] = ("encode latents", "condition", "decode", "decode large")
"""The stages that run the VAE."""
WITH_TRANSFORMER: tuple[StageName, ...] = ("train", "denoise", "upsample")
"""The stages that run a transformer."""
MEASURED_AS: dict[StageName, StageName] = {"upsample": "denoise", "decode large": "decode"}
"""The stages of super resolution, which a self-test does not run -> those that do the same with smaller videos."""


def section_of(name: StageName, settings: Settings) -> CacheSettings | TrainSettings | SampleSettings:
    """Return the section with a stage's settings."""
    section: CacheSettings | TrainSettings | SampleSettings = getattr(settings, SECTION[name])
    return section


def gpus_of(name: StageName, settings: Settings) -> int:
    """Return how many GPUs work on a stage together; only the transformer's stages are divided."""
    match name:
        case "train":
            return settings.train.gpus
        case "denoise" | "upsample":
            return settings.sample.context_parallel
        case _:
            return 1
