"""The committed base: what its files are, and that its VAE draws the world."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import hv15.demo
from demo_base import dit as dit_stage
from demo_base import enlarger as enlarger_stage
from demo_base import upsampler as upsampler_stage
from demo_base import vae as vae_stage
from demo_base.basis import to_pixels
from hv15.demo import world
from hv15.demo.layout import ENLARGES_TO
from hv15.demo.models import write_encoders
from hv15.models.dit_files import checkpoint_dtype, load_dit
from hv15.models.super_resolution import upsampler_resolution
from hv15.models.upsampler_files import read_upsampler_config
from hv15.models.vae import VAE, load_vae
from hv15.models.weights.checkpoint import open_checkpoint

BASE = Path(hv15.demo.__file__).parent / "base"
SCALE = 1.03682  # of the published VAE
SCENES = world.scenes((*world.SHAPES, world.RING))[::19]
"""All values of all parts, and held-out combinations."""


@cache
def vae() -> VAE:
    return load_vae(BASE / "vae.safetensors", dtype=torch.float32)


@cache
def clips() -> torch.Tensor:
    return to_pixels(np.stack([world.render(scene, seed=4) for scene in SCENES]))


@cache
def latents() -> torch.Tensor:
    with torch.inference_mode():
        return vae().encode(clips())


@cache
def drawn() -> torch.Tensor:
    with torch.inference_mode():
        return vae().decode(latents())


def decibels(shown: torch.Tensor, wanted: torch.Tensor) -> float:
    return float(10 * torch.log10(4 / (shown.clamp(-1, 1) - wanted).square().mean()))


ENLARGING = ("sr_dit.safetensors", "upsampler.safetensors")


def test_it_is_small_and_of_the_official_sizes() -> None:
    sizes = {path.name: path.stat().st_size for path in BASE.rglob("*") if path.is_file()}
    assert sum(size for name, size in sizes.items() if name not in ENLARGING) <= 16e6
    assert sum(sizes[name] for name in ENLARGING) <= 4e6
    assert load_dit(BASE / "dit.safetensors").config == dit_stage.SIZES
    assert vae().config == vae_stage.SIZES
    for name, dtype in (("dit", torch.bfloat16), ("vae", torch.float16)):
        checkpoint = open_checkpoint(BASE / f"{name}.safetensors")
        assert {checkpoint.dtype(key) for key in checkpoint} == {dtype}


def test_its_super_resolution_is_of_the_official_kind() -> None:
    """Told apart by their headers alone, as published files are."""
    dit, upsampler = (BASE / name for name in ENLARGING)
    assert load_dit(dit, dtype=torch.float32, super_resolution=True).config == enlarger_stage.SIZES
    assert read_upsampler_config(open_checkpoint(upsampler)) == upsampler_stage.SIZES
    assert upsampler_resolution(open_checkpoint(upsampler)) == ENLARGES_TO
    assert checkpoint_dtype(dit) == torch.float8_e4m3fn
    assert {open_checkpoint(upsampler).dtype(key) for key in open_checkpoint(upsampler)} == {torch.float16}


def test_its_encoders_are_those_that_it_was_trained_with(tmp_path: Path) -> None:
    write_encoders(tmp_path)
    for name in ("qwen", "byt5", "siglip"):
        made, kept = load_file(tmp_path / f"{name}.safetensors"), load_file(BASE / f"{name}.safetensors")
        assert made.keys() == kept.keys()
        assert all(torch.equal(made[key], kept[key]) for key in made)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "tokenizer" / name).read_bytes() == (BASE / "tokenizer" / name).read_bytes()


@pytest.mark.slow
def test_its_latents_have_about_unit_variance() -> None:
    scaled = SCALE * latents()
    assert 0.8 < scaled.square().mean().item() < 1.25
    assert scaled.mean((0, 2, 3, 4)).abs().max().item() < 0.4


@pytest.mark.slow
def test_its_vae_draws_what_it_was_shown() -> None:
    """The ring and the held-out combinations included."""
    assert decibels(drawn(), clips()) > 22.5
    assert decibels(drawn()[:, :, :1], clips()[:, :, :1]) > 22.5


def test_a_still_picture_is_the_first_frame_of_its_clip() -> None:
    with torch.inference_mode():
        alone = vae().encode(clips()[:4, :, :1])
    torch.testing.assert_close(alone, latents()[:4, :, :1], atol=1e-4, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_another_scale_of_the_latents_draws_worse(factor: float) -> None:
    few = slice(None, None, 3)
    with torch.inference_mode():
        wrong = decibels(vae().decode(latents()[few] * factor), clips()[few])
    assert wrong < decibels(drawn()[few], clips()[few]) - 0.2
