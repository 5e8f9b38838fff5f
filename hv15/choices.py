"""Choices that a setting offers and that the code below the config acts on: each is listed here, once.

Imports nothing, so that describing the options stays fast.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

Task: TypeAlias = Literal["t2v", "i2v"]
"""Text-to-video, or image-to-video."""

TransformerSection: TypeAlias = Literal["train", "sample"]
"""The sections of the config with settings of the transformer."""

PlannedJob: TypeAlias = Literal[
    "encode_latents",
    "encode_texts",
    "encode_masks",
    "condition",
    "train",
    "sample",
    "decode",
    "upsample",
    "decode_large",
    "convert",
]
"""The kinds of jobs of the workflow that may be sent to other machines: `condition` encodes first images, `upsample`
and `decode_large` are super resolution."""
JobNeed: TypeAlias = Literal["mem_mb", "runtime", "threads"]
"""What a job asks for, as Snakemake calls it: memory in 10^6 bytes, minutes, threads."""

Resolution: TypeAlias = Literal["360p", "480p", "720p", "1080p"]
"""The names of the official sizes of videos."""

VariantName: TypeAlias = Literal[
    "480p_t2v",
    "480p_i2v",
    "720p_t2v",
    "720p_i2v",
    "480p_t2v_distilled",
    "480p_i2v_distilled",
    "720p_t2v_distilled",
    "720p_t2v_distilled_sparse",
    "720p_i2v_distilled",
    "720p_i2v_distilled_sparse",
    "480p_i2v_step_distilled",
]
"""The checkpoints of the transformer, as their folders in the official repository are called."""

EnlargedResolution: TypeAlias = Literal["720p", "1080p"]
"""The resolutions to which super resolution enlarges, each with models of its own."""
Enlarging: TypeAlias = Literal["off", "auto", EnlargedResolution]
"""Whether samples are enlarged, and how far."""

Role: TypeAlias = Literal[
    "dit", "vae", "text_encoder", "tokenizer", "glyph_encoder", "image_encoder", "sr_dit", "upsampler"
]
"""What a model is for."""
ROLES: tuple[Role, ...] = ("dit", "vae", "text_encoder", "tokenizer", "glyph_encoder", "image_encoder")
ENLARGING_ROLES: tuple[Role, ...] = ("sr_dit", "upsampler")
"""The models of super resolution, besides those of any sample."""

DEVICE_PATTERN = r"auto|cpu|cuda(:\d{1,2})?"
"""What `runtime.device` may be, as a regular expression."""
DEVICE_NAMES = "auto, cpu, cuda or cuda:0, cuda:1, ..."
"""The same in words."""

StepCacheRule: TypeAlias = Literal["deepcache", "teacache", "taylorcache", "adaptive"]

GuidanceBatch: TypeAlias = Literal["auto", "by_memory", "batched", "two_pass"]
"""How the two branches of guidance are computed: as one batch or in two passes, by size, by free memory or always."""

WeightFormat: TypeAlias = Literal["fp8", "fp8_fast", "int8", "nf4"]
"""Number formats of quantised weights."""

PublishedLayout: TypeAlias = Literal["comfyui", "diffusers", "official"]
"""The programs whose tensor names a transformer checkpoint may use; so may a LoRA."""
LoRALayout: TypeAlias = Literal["kohya", PublishedLayout, "comfyui_kohya", "peft"]
"""The programs whose tensor names a LoRA may use. Our own files use kohya's. `comfyui_kohya` is ComfyUI's modules in
kohya's spelling (`lora_unet_`), `peft` an adapter for diffusers' transformer that PEFT loads."""
LoRAProgram: TypeAlias = Literal["comfyui", "diffusers", "official", "musubi"]
"""The programs whose loaders `hv15 verify` knows."""

NetworkType: TypeAlias = Literal["lora", "dora", "loha", "lokr"]
"""How the trained change of a layer's weight is made of smaller matrices."""
LayerPreset: TypeAlias = Literal["all", "attention", "mlp", "no_modulation"]
"""Names for groups of the transformer's layers that can be trained."""


def roles_of(task: Task) -> tuple[Role, ...]:
    """Return the models that a task needs: the image encoder for i2v only."""
    return ROLES if task == "i2v" else tuple(role for role in ROLES if role != "image_encoder")


QWEN = "Qwen/Qwen2.5-VL-7B-Instruct"
"""The Hub's name of the text encoder, whose tokenizer is used."""
