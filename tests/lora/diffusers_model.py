"""diffusers' own transformer with the weights of a small one of ours, for LoRAs that its loader puts on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from diffusers import HunyuanVideo15Transformer3DModel
from safetensors.torch import load_file
from torch import Tensor, nn

from hv15.models import Condition, DiT
from tests.models.golden_dit import TINY

SIZES = replace(TINY, glyph_hidden=2048)  # a size that diffusers fixes


def load_peer(path: Path) -> HunyuanVideo15Transformer3DModel:
    """Theirs, with the weights of a file in their layout."""
    with torch.device("meta"):
        model = HunyuanVideo15Transformer3DModel(
            in_channels=SIZES.in_channels,
            out_channels=SIZES.latent_channels,
            num_attention_heads=SIZES.num_heads,
            attention_head_dim=SIZES.head_dim,
            num_layers=SIZES.num_blocks,
            num_refiner_layers=SIZES.refiner_blocks,
            text_embed_dim=SIZES.text_dim,
            text_embed_2_dim=SIZES.glyph_dim,
            image_embed_dim=SIZES.vision_dim,
            rope_axes_dim=SIZES.rope_dims,
            rope_theta=SIZES.rope_theta,
        )
    model.load_state_dict(load_file(path), assign=True)
    model.rope = type(model.rope)(1, 1, SIZES.rope_dims, SIZES.rope_theta)
    return model.eval()


def model_inputs() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(5)
    return {
        "hidden_states": torch.randn(1, SIZES.in_channels, 2, 4, 4, generator=draw),
        "timestep": torch.tensor([431.0]),
        "encoder_hidden_states": torch.randn(1, 6, SIZES.text_dim, generator=draw),
        "encoder_attention_mask": torch.ones(1, 6, dtype=torch.long),
        "encoder_hidden_states_2": torch.randn(1, 3, SIZES.glyph_dim, generator=draw),
        "encoder_attention_mask_2": torch.ones(1, 3, dtype=torch.long),
        "image_embeds": torch.randn(1, 5, SIZES.vision_dim, generator=draw),
    }


@torch.no_grad()
def theirs(model: nn.Module) -> Tensor:
    return model(**model_inputs(), return_dict=False)[0]


@torch.no_grad()
def ours(dit: DiT) -> Tensor:
    x = model_inputs()
    cond = Condition(x["encoder_hidden_states"], [6], x["encoder_hidden_states_2"], [3], x["image_embeds"])
    return dit(x["hidden_states"], x["timestep"], cond)
