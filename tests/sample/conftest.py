"""The tiny golden transformer, and stand-ins for what surrounds the denoising loop."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hv15.models import DiT, DiTConfig

GOLDEN = Path(__file__).parents[1] / "golden"


def golden_config(**changes) -> DiTConfig:
    sizes = json.loads((GOLDEN / "dit_config.json").read_text())
    return DiTConfig(
        **{
            "hidden_size": sizes["hidden_size"],
            "num_heads": sizes["heads_num"],
            "num_blocks": sizes["mm_double_blocks_depth"],
            "mlp_ratio": sizes["mlp_width_ratio"],
            "rope_dims": tuple(sizes["rope_dim_list"]),
            "rope_theta": sizes["rope_theta"],
            "latent_channels": sizes["in_channels"],
            "text_dim": sizes["text_states_dim"],
            "glyph_dim": sizes["byt5_in_dim"],
            "glyph_hidden": sizes["byt5_hidden_dim"],
            "vision_dim": sizes["vision_states_dim"],
        }
        | changes
    )


def make_golden_dit() -> DiT:
    dit = DiT(golden_config())
    dit.load_state_dict(load_file(GOLDEN / "dit_weights.safetensors"))
    return dit.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def golden_dit() -> DiT:
    return make_golden_dit()


class StandIn(torch.nn.Module):
    """A model whose velocity is a given function of (x, timestep); it keeps what it was called with."""

    def __init__(self, velocity, *, meanflow=False):
        super().__init__()
        self.velocity, self.config, self.calls = velocity, DiTConfig(latent_channels=4, meanflow=meanflow), []

    def forward(self, x, timestep, cond, timestep_r=None):
        self.calls.append((x, timestep, cond, timestep_r))
        return self.velocity(x, timestep, cond)
