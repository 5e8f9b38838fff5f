"""Tiny models as files, store items, specs and LoRAs for the stages; a stand-in model for the loop."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hv15.lora import LoRANetwork, save_lora
from hv15.models import VAE, VAEConfig
from hv15.models.dit_files import save_dit
from hv15.models.vae import save_vae
from hv15.models.weights.fingerprint import model_fingerprint
from hv15.records.json_values import JsonObject
from hv15.sample.prompts import ImageFile, SampleSpec
from tests.models.encoder_files import golden, write
from tests.models.golden_dit import TINY, golden_dit

torch.set_num_threads(1)  # the models are tiny: threads would only wait for each other

FRAMES, HEIGHT, WIDTH = 5, 32, 48
ENLARGING = {"sr_dit": "the sr dit", "upsampler": "the upsampler"}
TRAINED, TEXT = "what was trained", "how texts are encoded"  # stand for the digests of the two


class StandIn(torch.nn.Module):
    """A model whose velocity is a given function of (x, timestep, cond); it keeps what it was called with."""

    context_parallel = None

    def __init__(self, velocity, *, meanflow=False):
        super().__init__()
        self.velocity, self.config, self.calls = velocity, replace(TINY, meanflow=meanflow), []

    def prepare(self, cond):
        return cond

    def forward(self, x, timestep, cond, timestep_r=None):
        self.calls.append((x, timestep, cond, timestep_r))
        return self.velocity(x, timestep, cond)


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> dict[str, Path]:
    """The golden transformer, a VAE with its 4 latent channels, and the golden image encoder, as checkpoint files."""
    folder = tmp_path_factory.mktemp("models")
    paths = {role: folder / f"{role}.safetensors" for role in ("dit", "vae", "image_encoder")}
    save_dit(golden_dit(), paths["dit"])
    torch.manual_seed(3)
    save_vae(VAE(VAEConfig(latent_channels=4, block_out_channels=(4, 4, 8, 8, 8), layers_per_block=1)), paths["vae"])
    weights, _, config = golden("siglip_tiny")
    write(paths["image_encoder"], weights, config)
    return paths


@pytest.fixture
def image(tmp_path) -> Path:
    path = tmp_path / "first.png"
    rows, columns = np.mgrid[0:60, 0:100]
    pixels = np.stack([rows * 4, columns * 2, 255 - rows - columns], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def spec() -> SampleSpec:
    return SampleSpec(
        name="cat",
        task="t2v",
        prompt='a cat reads "hello"',
        negative_prompt="",
        height=HEIGHT,
        width=WIDTH,
        frames=FRAMES,
        steps=3,
        guidance_scale=6.0,
        flow_shift=5.0,
        seed=123,
        fps=24.0,
        output_type="video",
        dtype="auto",
        quantize="none",
        vae_sample_size=0,
        vae_tile_overlap=0.25,
        variant="480p_t2v",
        lora_multiplier=1.0,
        image=None,
        loras=(),
        models={"dit": "the dit", "vae": "the vae", "text_encoder": "qwen", "image_encoder": "siglip", **ENLARGING},
    )


@pytest.fixture
def image_of(image) -> ImageFile:
    return ImageFile(str(image), model_fingerprint(image))


def made_from(spec: SampleSpec) -> JsonObject:
    """What a spec's latents say that they are made from."""
    return spec.denoising(TRAINED, TEXT)


def text_item(seed: int, *, tokens: int = 6, glyphs: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "text": torch.randn(tokens, TINY.text_dim, generator=generator),
        "glyphs": torch.randn(glyphs, TINY.glyph_dim, generator=generator),
    }


def make_lora(path: Path, seed: int, *, strength: float = 0.5) -> Path:
    """Write a LoRA that visibly changes the tiny model."""
    network = LoRANetwork(golden_dit(), rank=4, alpha=4, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    state_dict = {
        name: torch.randn(value.shape, generator=generator) * strength if name.endswith("lora_up.weight") else value
        for name, value in network.state_dict().items()
    }
    save_lora(path, state_dict, {})
    return path
