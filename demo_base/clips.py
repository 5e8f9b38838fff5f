"""The clips that the demo's transformer learns from: rendered, encoded, and put into a store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from demo_base.basis import Basis, to_pixels
from hv15.cache.batches import Stores, TrainingItem
from hv15.cache.store import Store
from hv15.data.captions import caption_key
from hv15.demo import world
from hv15.demo.models import DIT
from hv15.digest import digest
from hv15.grid import latent_size
from hv15.models.text import load_text_encoder
from hv15.models.vision import ImageEncoder, load_image_encoder
from hv15.progress import Progress

LOOKS = 16
"""Clips of each combination."""
_AT_ONCE = 16


@dataclass(frozen=True)
class Shown:
    """A clip by name: what `world.render` needs to draw it."""

    scene: world.Scene
    seed: int

    @property
    def key(self) -> str:
        return digest(["world", self.scene.caption, self.seed])


def training_clips(looks: int = LOOKS) -> list[Shown]:
    """Return every clip that the transformer is shown: no held-out combination, and never the concept."""
    return [Shown(scene, seed) for seed in range(looks) for scene in world.scenes() if not scene.held_out]


def training_items(clips: list[Shown], batch: int) -> list[TrainingItem]:
    """Return the clips as a training knows them."""
    grid = latent_size(world.FRAMES, world.SIZE, world.SIZE)
    return [TrainingItem(clip.key, caption_key(clip.scene.caption), grid, batch_size=batch) for clip in clips]


def encode(clips: list[Shown], basis: Basis, encoders: Path, root: Path, settings: str) -> Stores:
    """Encode what the stores lack of the clips, their captions and the empty caption.

    Args:
        encoders: folder with the text encoder, the tokenizer and the image encoder.
        settings: digest of what the results depend on besides the clips.
    """
    latents, texts = Store(root, "latents", settings), Store(root, "text", settings)
    _encode_clips([clip for clip in clips if not latents.has(clip.key)], basis, encoders, latents)
    captions = sorted({"", *(clip.scene.caption for clip in clips)})
    _encode_captions([text for text in captions if not texts.has(caption_key(text))], encoders, texts)
    return Stores(latents, texts)


def _encode_clips(clips: list[Shown], basis: Basis, encoders: Path, store: Store) -> None:
    vision = load_image_encoder(encoders / "siglip.safetensors", dtype=torch.float32)
    with Progress(len(clips), "encode clips", unit="clips") as progress, torch.inference_mode():
        for start in range(0, len(clips), _AT_ONCE):
            part = clips[start : start + _AT_ONCE]
            items = encode_batch([world.render(clip.scene, clip.seed) for clip in part], basis, vision)
            for clip, item in zip(part, items, strict=True):
                store.write(clip.key, item, {"caption": clip.scene.caption})
            progress.advance(len(part))


def encode_batch(frames: list[NDArray[np.uint8]], basis: Basis, vision: ImageEncoder) -> list[dict[str, torch.Tensor]]:
    """Return the store items of clips, uint8 [F, H, W, 3] each."""
    pixels = to_pixels(np.stack(frames))  # (B, 3, F, H, W)
    states = vision.encode([clip[0] for clip in frames])
    return [{"latents": one, "vision": seen} for one, seen in zip(basis.encode(pixels), states, strict=True)]


def _encode_captions(captions: list[str], encoders: Path, store: Store) -> None:
    if not captions:
        return
    encoder = load_text_encoder(encoders / "qwen.safetensors", encoders / "tokenizer", dtype=torch.float32)
    no_glyphs = torch.zeros(0, DIT.glyph_dim)
    for text, states in zip(captions, encoder.encode(captions, batch_size=64), strict=True):
        store.write(caption_key(text), {"text": states, "glyphs": no_glyphs}, {"text": text})
