"""The transformer against diffusers' own implementation, built and run here."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import HunyuanVideo15Transformer3DModel
from diffusers.models.transformers.transformer_hunyuan_video15 import (
    HunyuanVideo15ByT5TextProjection,
    HunyuanVideo15TokenRefiner,
)
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from hv15.demo.layout import BASE
from hv15.models import Condition, DiT, DiTConfig, load_dit, save_dit
from hv15.models.layouts import reading_recipes
from tests.models.golden_dit import TINY

pytestmark = pytest.mark.numeric

PEER = replace(TINY, glyph_hidden=2048)  # a size that diffusers fixes


def peer(config: DiTConfig = PEER) -> HunyuanVideo15Transformer3DModel:
    """diffusers' model with random weights; it takes all our sizes except those of the ByT5 mapper and refiner MLPs."""
    torch.manual_seed(7)
    model = HunyuanVideo15Transformer3DModel(
        in_channels=config.in_channels,
        out_channels=config.latent_channels,
        num_attention_heads=config.num_heads,
        attention_head_dim=config.head_dim,
        num_layers=config.num_blocks,
        num_refiner_layers=config.refiner_blocks,
        mlp_ratio=config.mlp_ratio,
        text_embed_dim=config.text_dim,
        text_embed_2_dim=config.glyph_dim,
        image_embed_dim=config.vision_dim,
        rope_axes_dim=config.rope_dims,
        rope_theta=config.rope_theta,
        use_meanflow=config.meanflow,
    ).eval()
    with torch.no_grad():  # their init leaves some weights at one or zero, which would hide a mistake
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def inputs(batch: int, image: bool, config: DiTConfig = TINY) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(batch)
    masks = {1: ([9], [4]), 2: ([5, 12], [0, 8])}[batch]
    text, glyphs = (
        torch.stack([(torch.arange(size) < length).long() for length in lengths])
        for size, lengths in zip((12, 8), masks, strict=True)
    )
    return {
        "hidden_states": torch.randn(batch, config.in_channels, 3, 4, 6, generator=draw),
        "timestep": torch.tensor([731.25, 12.5][:batch]),
        "encoder_hidden_states": torch.randn(batch, 12, config.text_dim, generator=draw),
        "encoder_attention_mask": text,
        "encoder_hidden_states_2": torch.randn(batch, 8, config.glyph_dim, generator=draw),
        "encoder_attention_mask_2": glyphs,
        "image_embeds": torch.randn(batch, 5, config.vision_dim, generator=draw) * image,
    }


def ours(dit: DiT, arguments: dict[str, Tensor], image: bool, timestep_r: Tensor | None = None) -> Tensor:
    cond = Condition(
        text=arguments["encoder_hidden_states"],
        text_lengths=arguments["encoder_attention_mask"].sum(1).tolist(),
        glyphs=arguments["encoder_hidden_states_2"],
        glyph_lengths=arguments["encoder_attention_mask_2"].sum(1).tolist(),
        vision=arguments["image_embeds"] if image else None,
    )
    return dit(arguments["hidden_states"], arguments["timestep"], cond, timestep_r)


@pytest.mark.parametrize(
    ("batch", "image"),
    [
        pytest.param(1, False, id="1-t2v"),
        pytest.param(2, True, id="2-i2v"),
        pytest.param(1, True, id="1-i2v", marks=pytest.mark.slow),
        pytest.param(2, False, id="2-t2v", marks=pytest.mark.slow),
    ],
)
def test_velocity_of_a_folder_saved_by_diffusers(tmp_path_factory: pytest.TempPathFactory, batch: int, image: bool):
    folder = tmp_path_factory.mktemp("diffusers")
    model = peer()
    model.save_pretrained(folder)
    dit = load_dit(folder)
    arguments = inputs(batch, image)
    with torch.no_grad():
        expected = model(**arguments, return_dict=False)[0]
        assert_close(ours(dit, arguments, image), expected, atol=5e-6, rtol=0)


def test_sharded_folder_and_meanflow(tmp_path):
    model = peer(replace(PEER, meanflow=True))
    model.save_pretrained(tmp_path, max_shard_size="200KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    dit = load_dit(tmp_path)
    assert dit.config.meanflow
    arguments, timestep_r = inputs(1, True), torch.tensor([610.0])
    with torch.no_grad():
        expected = model(**arguments, timestep_r=timestep_r, return_dict=False)[0]
        assert_close(ours(dit, arguments, True, timestep_r), expected, atol=5e-6, rtol=0)


def test_what_we_save_loads_strictly_into_diffusers(tmp_path):
    torch.manual_seed(3)
    dit = DiT(PEER)
    save_dit(dit, tmp_path / "model.safetensors", layout="diffusers")
    model = peer()
    model.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    arguments = inputs(1, False)
    with torch.no_grad():
        assert_close(model(**arguments, return_dict=False)[0], ours(dit, arguments, False), atol=5e-6, rtol=0)


def test_the_refiner_keeps_its_own_ratio(tmp_path):
    """Blocks whose MLPs are not 4 times wider: the refiner's stay 4 times wider, in diffusers and in hv15."""
    config = replace(PEER, mlp_ratio=2.5)
    model = peer(config)
    model.save_pretrained(tmp_path)
    dit = load_dit(tmp_path)
    assert dit.config == config
    assert (config.mlp_ratio, config.refiner_mlp_ratio) == (2.5, 4.0)
    save_dit(dit, tmp_path / "ours.safetensors", layout="diffusers")
    again = peer(config)
    again.load_state_dict(load_file(tmp_path / "ours.safetensors"), strict=True)
    arguments = inputs(1, True)
    with torch.no_grad():
        for each in (model, again):
            assert_close(ours(dit, arguments, True), each(**arguments, return_dict=False)[0], atol=5e-6, rtol=0)


def test_the_demos_transformer_is_that_of_diffusers(tmp_path):
    """Except for two sizes that diffusers fixes; its classes for the ByT5 mapper and the refiner accept them."""
    dit = load_dit(BASE / "dit.safetensors", dtype=torch.float32)
    config = dit.config
    assert (config.mlp_ratio, config.refiner_mlp_ratio, config.glyph_hidden) == (2.5, 2.5, 64)
    model = peer(config)
    model.context_embedder_2 = HunyuanVideo15ByT5TextProjection(config.glyph_dim, 64, config.hidden_size)
    model.context_embedder = HunyuanVideo15TokenRefiner(
        config.text_dim, config.num_heads, config.head_dim, config.refiner_blocks, config.refiner_mlp_ratio
    )
    save_dit(dit, tmp_path / "dit.safetensors", layout="diffusers")
    model.load_state_dict(load_file(tmp_path / "dit.safetensors"), strict=True)
    arguments = inputs(1, True, config)
    with torch.no_grad():
        expected = model.eval()(**arguments, return_dict=False)[0]
        assert_close(ours(dit, arguments, True), expected, atol=5e-6, rtol=1e-5)


def test_gradients_are_those_of_diffusers():
    model = peer()
    with torch.device("meta"):
        dit = DiT(PEER)
    weights = model.state_dict()
    recipes = reading_recipes("diffusers", dit.state_dict())
    dit.load_state_dict({key: recipe.make(weights.__getitem__).clone() for key, recipe in recipes.items()}, assign=True)
    arguments = inputs(1, True)
    dit.requires_grad_(True)
    ours(dit, arguments, True).square().mean().backward()
    model(**arguments, return_dict=False)[0].square().mean().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    compared = 0
    for key, parameter in dit.named_parameters():
        if parameter.grad is not None:
            assert_close(parameter.grad, recipes[key].make(gradients.__getitem__), atol=1e-6, rtol=1e-4, msg=key)
            compared += 1
    assert compared > 80
