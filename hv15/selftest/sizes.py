"""Sizes of the models and of the steps: the real ones, and tiny ones for a machine without a GPU."""

from __future__ import annotations

from dataclasses import dataclass

from hv15.grid import latent_size
from hv15.models.dit_config import DiTConfig
from hv15.models.glyphs import GlyphConfig
from hv15.models.text import TextConfig
from hv15.models.vae_coders import VAEConfig
from hv15.models.vision import VisionConfig
from hv15.records.selftest import SizesName

NUMBERS_DIT = DiTConfig(
    hidden_size=256, num_heads=2, num_blocks=3, text_dim=64, glyph_dim=32, glyph_hidden=64, vision_dim=32
)
"""Heads as wide as the real ones, since kernels are chosen by that."""
NUMBERS_VAE = VAEConfig(latent_channels=8, block_out_channels=(16, 32, 64, 64, 64), layers_per_block=1)
NUMBERS_TEXT = TextConfig(
    vocab_size=512,
    hidden_size=256,
    intermediate_size=512,
    num_layers=4,
    num_kv_heads=1,
)
NUMBERS_VISION = VisionConfig(hidden_size=144, intermediate_size=256, num_layers=2, num_heads=2, image_size=56)
NUMBERS_GLYPHS = GlyphConfig(hidden_size=128, intermediate_size=256, num_layers=2, num_heads=2)


@dataclass(frozen=True)
class VideoSize:
    """The size of a video, and how many are computed at once."""

    width: int
    height: int
    frames: int
    batch: int = 1

    @property
    def latent(self) -> tuple[int, int, int]:
        """Latent frames, height, width."""
        return latent_size(self.frames, self.height, self.width)

    def __str__(self) -> str:
        size = f"{self.width}x{self.height}x{self.frames}"
        return size if self.batch == 1 else f"{size}, batch {self.batch}"


@dataclass(frozen=True)
class Sizes:
    """What the part `full size` runs."""

    name: SizesName
    dit: DiTConfig
    vae: VAEConfig
    text: TextConfig
    main: VideoSize
    """Of the training step that is compared with public figures."""
    small: VideoSize
    """Of sampling steps, and of the training steps with one option each."""
    large: VideoSize
    """Of the longest training step."""
    coded: tuple[VideoSize, ...]
    """Clips that the VAE encodes and decodes."""
    swapped: tuple[int, ...]
    """Numbers of swapped blocks."""
    text_tokens: int
    captions: int
    compared: tuple[int, int, int]
    """Latent frames, height, width of what is computed with `NUMBERS_DIT`."""
    offloaded: tuple[int, int, int]
    """The same with so many tokens that activation offload moves them: it leaves small tensors where they are."""
    rank: int = 16

    @property
    def is_full(self) -> bool:
        return self.name == "full"


FULL = Sizes(
    name="full",
    dit=DiTConfig(),
    vae=VAEConfig(),
    text=TextConfig(),
    main=VideoSize(480, 480, 49, batch=2),  # 7.68 s on an H100 in another trainer
    small=VideoSize(832, 480, 25),
    large=VideoSize(1280, 720, 121),
    coded=(VideoSize(832, 480, 25), VideoSize(1280, 720, 25)),
    swapped=(20, 51),
    text_tokens=200,
    captions=16,
    compared=(4, 16, 32),
    offloaded=(4, 16, 32),
)

TINY = Sizes(
    name="tiny",
    dit=DiTConfig(
        hidden_size=128,
        num_heads=4,
        num_blocks=6,
        rope_dims=(8, 12, 12),
        text_dim=64,
        glyph_dim=32,
        glyph_hidden=64,
        vision_dim=32,
    ),
    vae=NUMBERS_VAE,
    text=NUMBERS_TEXT,
    main=VideoSize(128, 128, 9, batch=2),
    small=VideoSize(128, 96, 9),
    large=VideoSize(256, 160, 17),
    coded=(VideoSize(64, 64, 5), VideoSize(96, 64, 5)),
    swapped=(2, 4),
    text_tokens=20,
    captions=4,
    compared=(4, 8, 8),
    offloaded=(4, 16, 16),
)
