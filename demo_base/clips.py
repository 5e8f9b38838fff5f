"""Renders and encodes the clips on which the demo's transformer is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from demo_base.basis import CellBasis, to_pixels
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
"""Number of clips of each combination."""
_BATCH = 16


@dataclass(frozen=True)
class TrainingClip:
    """A training clip, as the arguments with which `world.render` draws it."""

    scene: world.Scene
    seed: int

    @property
    def key(self) -> str:
        return digest(["world", self.scene.caption, self.seed])


def training_clips(looks: int = LOOKS) -> list[TrainingClip]:
    """Return all clips on which the transformer is trained: none of a held-out combination or of the concept."""
    return [TrainingClip(scene, seed) for seed in range(looks) for scene in world.scenes() if not scene.held_out]


def training_items(clips: list[TrainingClip], batch: int) -> list[TrainingItem]:
    """Return the clips as the items of a training."""
    grid = latent_size(world.FRAMES, world.SIZE, world.SIZE)
    return [TrainingItem(clip.key, caption_key(clip.scene.caption), grid, batch_size=batch) for clip in clips]


def encode(clips: list[TrainingClip], basis: CellBasis, encoders: Path, root: Path, settings: str) -> Stores:
    """Encode the clips, their captions and the empty caption, as far as they are not in the stores yet.

    Args:
        encoders: folder with the text encoder, the tokenizer and the image encoder.
        settings: digest of everything else on which the results depend.
    """
    latents, texts = Store(root, "latents", settings), Store(root, "text", settings)
    _encode_clips([clip for clip in clips if not latents.has(clip.key)], basis, encoders, latents)
    captions = sorted({"", *(clip.scene.caption for clip in clips)})
    _encode_captions([text for text in captions if not texts.has(caption_key(text))], encoders, texts)
    return Stores(latents, texts)


def _encode_clips(clips: list[TrainingClip], basis: CellBasis, encoders: Path, store: Store) -> None:
    vision = load_image_encoder(encoders / "siglip.safetensors", dtype=torch.float32)
    with Progress(len(clips), "encode clips", unit="clips") as progress, torch.inference_mode():
        for start in range(0, len(clips), _BATCH):
            part = clips[start : start + _BATCH]
            items = encode_batch([world.render(clip.scene, clip.seed) for clip in part], basis, vision)
            for clip, item in zip(part, items, strict=True):
                store.write(clip.key, item, {"caption": clip.scene.caption})
            progress.advance(len(part))


def encode_batch(
    frames: list[NDArray[np.uint8]], basis: CellBasis, vision: ImageEncoder
) -> list[dict[str, torch.Tensor]]:
    """Return the store items of clips, each uint8 [F, H, W, 3]: latents [32, F', h, w] and vision states [N, D]."""
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
