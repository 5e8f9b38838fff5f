"""The real sizes without data: every way with memory builds, and the plan stands beside what is public."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch

from hv15.config import Settings
from hv15.memory import WEIGHTS
from hv15.models import DiT, DiTConfig, VAEConfig
from hv15.models.text import TextConfig
from hv15.models.vae_decoding import Tiling
from hv15.models.weights.swap import BlockSwap
from hv15.plan.cost import Cost
from hv15.plan.decoding import decoding
from hv15.plan.devices import CONTEXT, CONVOLUTIONS, FRAGMENTS
from hv15.plan.encoders import make_vae, text_encoding
from hv15.plan.meter import Meter
from hv15.plan.metered_steps import PassSize, make_dit
from hv15.plan.transformer import denoising, training

GB, GIB = 10**9, 2**30
LATENT = (31, 45, 80)  # 720 x 1280 pixels, 121 frames
SIZE = PassSize(samples=1, latent=LATENT, text_tokens=300, i2v=False)
BF16 = torch.bfloat16


def settings(section: str, **options: Any) -> Settings:
    content = {"models": {"source": "demo"}, "datasets": [{"video_directory": "clips"}]}
    return Settings.model_validate({**content, section: options})


def needed(cost: Cost, allowance: int = CONTEXT) -> int:
    moving = cost.peak - cost.parts[WEIGHTS]
    return cost.peak + allowance + int(FRAGMENTS * moving)


def test_parameters_of_the_published_model():
    with torch.device("meta"):
        dit = DiT(DiTConfig())
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in dit.named_children()}
    count["cond_type_embedding"] = dit.cond_type_embedding.weight.numel()
    assert sum(p.numel() for p in dit.parameters()) == 8_326_608_160
    assert count["double_blocks"] == 54 * 151_056_896 == 8_157_072_384
    assert (count["txt_in"], count["byt5_in"], count["final_layer"]) == (141_105_152, 11_412_352, 8_458_272)
    assert (count["time_in"], count["vision_in"], count["img_in"]) == (4_722_688, 3_696_000, 135_168)
    assert count["cond_type_embedding"] == 6_144


@pytest.mark.parametrize("section", ["train", pytest.param("sample", marks=pytest.mark.slow)])
def test_every_combination_builds(section: str):
    """Three blocks, and all 54 where as many as possible are swapped."""
    combinations = product(("none", "fp8", "int8", "nf4"), (0, 3))
    each_way = ((*one, bool(number % 3)) for number, one in enumerate(combinations))
    for quantize, swap, split in [*each_way, ("fp8", 51, True)]:
        asked = settings(section, quantize=quantize, blocks_to_swap=swap, split_attn=split)
        with Meter("meta") as meter:
            dit = make_dit(meter, DiTConfig(num_blocks=swap + 3), getattr(asked, section), BF16, "meta")
        assert len(dit.double_blocks) == swap + 3
        assert any(isinstance(hook, BlockSwap) for hook in dit.block_hooks) == bool(swap)
        assert meter.now < 2 * GIB


@pytest.mark.slow
def test_sampling_at_720p_needs_less_than_the_official_minimum():
    """14 GB with offloading: every stage of ours, with all blocks but three swapped, and Qwen in fp8."""
    sampling = denoising(settings("sample", blocks_to_swap=51), DiTConfig(), BF16, SIZE, guided=True)
    vae = make_vae(VAEConfig(), torch.float16, patch_conv=False)
    stages = {
        "encode texts": needed(text_encoding(TextConfig(), torch.float16, 1000, 1, quantize=True)),
        "denoise": needed(sampling),
        "decode": needed(decoding(vae, LATENT, Tiling(256, 0.125)), CONTEXT + CONVOLUTIONS),
    }
    assert max(stages.values()) < 14 * GB
    assert stages["denoise"] < 6 * GB  # two blocks of weights in slots, three resident, and one block's activations


@pytest.mark.slow
def test_training_at_720p_stands_below_what_the_peers_need():
    """About 20 GB with 51 blocks swapped in musubi-tuner; here the inputs of the blocks wait outside, too."""
    options = {"blocks_to_swap": 51, "gradient_checkpointing_cpu_offload": True}
    planned = training(settings("train", **options), DiTConfig(), BF16, SIZE)
    assert needed(planned) < 20 * GB
    assert planned.host == pytest.approx((53 * 2 * 151_056_896) + 54 * 111_600 * 2048 * 2, rel=0.01)
