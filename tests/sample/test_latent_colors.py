"""The linear map from latents to colors: fitted on the demo's trained VAE, it shows clips that it never saw."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from hv15.demo.clips import concept_scenes
from hv15.demo.layout import BASE
from hv15.demo.world import render
from hv15.models import VAE, load_vae
from hv15.models.vae_pixels import from_bytes
from hv15.sample.latent_colors import LatentColors, fit_colors, read_colors, write_colors


@pytest.fixture(scope="module")
def vae() -> VAE:
    return load_vae(BASE / "vae.safetensors", dtype=torch.float32)


@pytest.fixture(scope="module")
def fitted(vae: VAE) -> tuple[LatentColors, float]:
    """The map, from pictures of half the height and width: 768 latents for its 99 numbers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hv15.sample.latent_colors._SIDE", 64)
        return fit_colors(vae)


def test_most_of_the_colors_is_explained(fitted: tuple[LatentColors, float]) -> None:
    assert 0.5 < fitted[1] <= 1


def test_colors_of_clips(vae: VAE, fitted: tuple[LatentColors, float]) -> None:
    """The mean color of each latent's pixels."""
    clip = torch.from_numpy(render(concept_scenes()[0], 0))[None, :9]
    pixels = from_bytes(clip, torch.float32)
    with torch.no_grad():
        latents = vae.encode(pixels)
    found = fitted[0].pixels(latents)
    means = pixels.unflatten(-1, (-1, 16)).mean(-1).unflatten(-2, (-1, 16)).mean(-2)
    expected = torch.cat([means[:, :, :1], means[:, :, 1:].unflatten(2, (-1, 4)).mean(3)], dim=2)
    assert found.shape == expected.shape
    error = (found - expected).square().mean()
    assert error < 0.5 * expected.var()


def test_a_fit_draws_from_no_state_and_is_repeatable(vae: VAE, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_PICTURES": 4, "_HELD_OUT": 1, "_SIDE": 32}.items():
        monkeypatch.setattr(f"hv15.sample.latent_colors.{name}", value)
    state = torch.get_rng_state()
    first, _ = fit_colors(vae)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    again, _ = fit_colors(vae)
    assert_close(again.weight, first.weight, atol=1e-6, rtol=1e-5)


def test_a_map_that_is_known_is_found() -> None:
    """Colors that are linear in the latents, of which one channel is always the same."""
    from hv15.sample.latent_colors import _least_squares

    latents = torch.randn(500, 5, dtype=torch.float64)
    latents[:, 3] = 2.0
    weight, bias = torch.randn(3, 5, dtype=torch.float64), torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)
    weight[:, 3] = 0
    found = _least_squares(latents, latents @ weight.T + bias)
    assert_close(found.weight.double(), weight, atol=1e-4, rtol=0)
    assert_close(found.bias.double(), bias, atol=1e-4, rtol=0)


def test_it_is_kept_for_one_vae(fitted: tuple[LatentColors, float], tmp_path) -> None:
    file = tmp_path / "colors.safetensors"
    assert read_colors(file, "this vae") is None
    write_colors(file, fitted[0], "this vae", fitted[1])
    found = read_colors(file, "this vae")
    assert found is not None
    assert torch.equal(found.weight, fitted[0].weight)
    assert torch.equal(found.bias, fitted[0].bias)
    assert read_colors(file, "another vae") is None
    file.write_bytes(file.read_bytes()[:-3])
    assert read_colors(file, "this vae") is None
