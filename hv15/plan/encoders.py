"""Memory and arithmetic of encoding clips, texts and first images: run on tensors without data.

The VAE works through a clip chunk by chunk, and every chunk but the first and the last takes the same. So short clips
are run, and their memory is extrapolated to the real length. Of many tiles, one is run, and what lies between tiles
(the whole picture, and the edges that are blended) is added. Tests compare both with complete runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from torch import nn

from hv15.memory import ACTIVATIONS, WEIGHTS
from hv15.models.text import TextConfig, TextEncoder, build_text_model
from hv15.models.vae import VAE, VAEConfig
from hv15.models.vae_pixels import encode_clips
from hv15.models.vision import ImageEncoder, VisionConfig, build_vision_model
from hv15.models.weights.quantised import replace_linears
from hv15.plan.cost import Cost, extrapolate
from hv15.plan.kernels import WithoutData
from hv15.plan.meter import Meter
from hv15.plan.work import scaled_work
from hv15.plan.workload import ClipBatch

PICTURE, TILE = "picture", "VAE tile"
CROP = 108
"""Tokens of the template before a prompt, which are computed and dropped."""


def make_vae(config: VAEConfig, dtype: torch.dtype, *, patch_conv: bool) -> VAE:
    """A VAE without data."""
    with torch.device("meta"):
        vae = VAE(config).to(dtype).requires_grad_(False)
    vae.patch_conv = patch_conv
    return vae


def make_image_encoder(config: VisionConfig, dtype: torch.dtype) -> ImageEncoder:
    """SigLIP without data."""
    with torch.device("meta"):
        model = build_vision_model(config).to(dtype).requires_grad_(False)
        positions = torch.arange(config.num_tokens)[None]
    model.get_submodule("embeddings").register_buffer("position_ids", positions, persistent=False)
    return ImageEncoder(model, config)


def encoding(
    vae: VAE, vision: ImageEncoder | None, clips: ClipBatch, *, tile_size: int = 0, overlap: float = 0.0
) -> Cost:
    """Return what a batch of clips takes: the clips, their latents, and for i2v the states of their first frames.

    Args:
        tile_size: of the VAE's tiles, in pixels; 0: without tiles.
        overlap: of tiles, a part of their size.
    """
    tiled = bool(tile_size) and max(clips.height, clips.width) > tile_size
    height, width = (min(side, tile_size) if tiled else side for side in (clips.height, clips.width))

    def run(frames: int) -> Meter:
        meter = meter_of(vae, vision.model if vision is not None else None)
        with torch.no_grad(), WithoutData(), meter:
            with meter.making(PICTURE):
                frames_as_bytes = torch.empty(clips.samples, frames, height, width, 3, dtype=torch.uint8, device="meta")
            latents = encode_clips(vae, frames_as_bytes, 0, overlap)
            if vision is not None:
                vision.encode([np.zeros((height, width, 3), np.uint8)] * clips.samples)
            del latents
        return meter

    cost = over_frames(run, vae.chunk_groups(height, width) * vae.config.ffactor_temporal, clips.frames)
    if not tiled:
        return cost
    space, itemsize = vae.config.ffactor_spatial, vae.dtype.itemsize
    beside = clips.samples * clips.frames * 3 * (clips.height * clips.width - height * width) * (1 + itemsize)
    stride = int(tile_size * (1 - overlap))
    cell = clips.samples * clips.latent[0] * 2 * vae.config.latent_channels * itemsize
    whole = cell * clips.latent[1] * clips.latent[2]
    edges = cell * _edges(clips.height // space, clips.width // space, tile_size // space, stride // space)
    return _with_tiles(cost, beside + whole + edges, _tiles(clips.height, clips.width, stride))


def text_encoding(config: TextConfig, dtype: torch.dtype, tokens: int, batch: int, *, quantize: bool = False) -> Cost:
    """Return what a batch of prompts takes; each has so many tokens after the template's beginning."""
    with torch.device("meta"):
        model = build_text_model(config).to(dtype).requires_grad_(False)
        model.rotary_emb = type(model.rotary_emb)(model.config)
    if quantize:
        replace_linears(model, "fp8", lambda name: name.startswith("layers."))
    meter = meter_of(model)
    with torch.no_grad(), WithoutData(), meter:
        TextEncoder(model, PromptsOfLength(tokens)).encode([""] * batch)
    return Cost.of(meter)


@dataclass(frozen=True)
class PromptsOfLength:
    """Stands in for the tokenizer: each prompt has the same number of tokens."""

    tokens: int
    pad_id: int = 0
    crop_start: int = CROP

    def rows(self, prompts: list[str]) -> list[list[int]]:
        return [[1] * (self.crop_start + self.tokens)] * len(prompts)


def meter_of(*models: nn.Module | None) -> Meter:
    """Return a meter of what models without data do, which counts their weights."""
    meter = Meter("meta")
    meter.assign(WEIGHTS, *models)
    return meter


def over_frames(run: Callable[[int], Meter], chunk: int, frames: int) -> Cost:
    """Run clips of a few chunks of frames and extrapolate to `frames`."""
    if frames <= 1 + 5 * chunk:
        return Cost.of(run(frames))
    few = 1 + 3 * chunk + (frames - 1) % chunk
    return extrapolate(Cost.of(run(few)), Cost.of(run(few + chunk)), (frames - few) // chunk)


def _tiles(height: int, width: int, stride: int) -> int:
    return ceil(height / stride) * ceil(width / stride)


def _edges(height: int, width: int, tile: int, stride: int) -> int:
    """Pixels that are kept besides the last tile of full width: of the row above, of this row, and to the left."""
    blend = tile - stride
    row = sum(min(tile, width - start) for start in range(0, width, stride))
    done = max(0, (width - tile) // stride) * tile
    above = min(blend, height) * row if height > stride else 0
    return above + min(blend, height) * done + (min(blend, width) * min(tile, height) if done else 0)


def _with_tiles(one: Cost, beside: int, tiles: int) -> Cost:
    parts = dict(one.parts)
    parts[TILE] = parts.pop(ACTIVATIONS, 0)
    parts[PICTURE] = parts.get(PICTURE, 0) + beside
    return Cost(parts, scaled_work(one.work, tiles))
