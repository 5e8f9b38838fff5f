"""Sampling and LoRA training steps at the real width, against diffusers (with peft) in the same run.

    OMP_NUM_THREADS=2 python bench/bench_peers.py [--blocks 2] [--grid 3 16 16] [--rounds 9] [--padded] [--cpu-time]

Both hold the same weights (fp32) and get the same inputs; their runs are interleaved, and the medians are compared, so
that a busy machine slows both alike. A sampling step is a guided one: two forward passes. A training step is forward,
backward with gradient checkpointing, and the update of the LoRA, which is on the same layers in both. `--padded` gives
diffusers the condition tokens as its pipeline pads them: 1000 of text and 256 of glyphs. `--cpu-time` measures the time
of the processor instead of the clock's: with one thread, that is fair on a busy machine, too.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from diffusers import HunyuanVideo15Transformer3DModel
from peft import LoraConfig
from torch import Tensor, nn

from hv15.lora import LoRANetwork
from hv15.models import Condition, DiT, DiTConfig
from hv15.models.layouts import reading_recipes

SIZES = replace(DiTConfig(), text_dim=512, glyph_dim=128, refiner_blocks=1)
RANK = 16
PADDED = 1000, 256
TARGETS = (
    r"transformer_blocks\.\d+\.(attn\.(to_[qkv]|add_[qkv]_proj|to_out\.0|to_add_out)|"
    r"ff(_context)?\.net\.(0\.proj|2)|norm1(_context)?\.linear)"
)
"""The 14 linear layers of a block by their names there."""

Step = Callable[[], object]


def make_models(blocks: int) -> tuple[DiT, HunyuanVideo15Transformer3DModel]:
    """Ours and theirs, frozen, on the same memory."""
    torch.manual_seed(0)
    sizes = replace(SIZES, num_blocks=blocks)
    theirs = HunyuanVideo15Transformer3DModel(
        in_channels=sizes.in_channels,
        out_channels=sizes.latent_channels,
        num_attention_heads=sizes.num_heads,
        attention_head_dim=sizes.head_dim,
        num_layers=sizes.num_blocks,
        num_refiner_layers=sizes.refiner_blocks,
        text_embed_dim=sizes.text_dim,
        text_embed_2_dim=sizes.glyph_dim,
        image_embed_dim=sizes.vision_dim,
        rope_axes_dim=sizes.rope_dims,
        rope_theta=sizes.rope_theta,
    ).requires_grad_(False)
    with torch.device("meta"):
        ours = DiT(sizes)
    weights = theirs.state_dict()
    recipes = reading_recipes("diffusers", list(ours.state_dict()))
    ours.load_state_dict({key: recipe.make(weights.__getitem__) for key, recipe in recipes.items()}, assign=True)
    return ours.requires_grad_(False), theirs


def make_calls(
    ours: nn.Module, theirs: nn.Module, grid: list[int], text_tokens: int, *, padded: bool
) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """One forward pass of each on the same latents and the same text."""
    x = torch.randn(1, SIZES.in_channels, *grid)
    t = torch.full((1,), 500.0)
    text = torch.randn(1, text_tokens, SIZES.text_dim)
    cond = Condition(text, [text_tokens], torch.zeros(1, 0, SIZES.glyph_dim), [0])
    tokens, glyphs = PADDED if padded else (text_tokens, 1)  # theirs needs glyphs: one is masked
    mask = (torch.arange(tokens) < text_tokens).long()[None]
    inputs = {
        "hidden_states": x,
        "timestep": t,
        "encoder_hidden_states": nn.functional.pad(text, (0, 0, 0, tokens - text_tokens)),
        "encoder_attention_mask": mask,
        "encoder_hidden_states_2": torch.zeros(1, glyphs, SIZES.glyph_dim),
        "encoder_attention_mask_2": torch.zeros(1, glyphs, dtype=torch.long),
        "image_embeds": torch.zeros(1, 1 if not padded else 729, SIZES.vision_dim),  # zeros: none
        "return_dict": False,
    }
    return lambda: ours(x, t, cond), lambda: theirs(**inputs)[0]


def guided(call: Callable[[], Tensor]) -> Step:
    @torch.no_grad()
    def step() -> Tensor:
        with_text, without = call(), call()
        return without + 6.0 * (with_text - without)

    return step


def trained(call: Callable[[], Tensor], parameters: list[nn.Parameter]) -> Step:
    optimizer = torch.optim.AdamW(parameters, lr=1e-5)

    def step() -> None:
        call().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def compare(name: str, ours: Step, theirs: Step, rounds: int, clock: Callable[[], float]) -> None:
    """Run both in turns, and print the medians of their seconds and the ratio."""
    ours(), theirs()
    times: dict[str, list[float]] = {"ours": [], "diffusers": []}
    for _ in range(rounds):
        for label, step in (("ours", ours), ("diffusers", theirs)):
            start = clock()
            step()
            times[label].append(clock() - start)
    median = {label: statistics.median(values) for label, values in times.items()}
    ratio = median["ours"] / median["diffusers"]
    print(
        f"{name:<16} ours {median['ours']:7.3f} s   diffusers {median['diffusers']:7.3f} s   ratio {ratio:.3f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--grid", type=int, nargs=3, default=[3, 16, 16], metavar=("FRAMES", "ROWS", "COLUMNS"))
    parser.add_argument("--text-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--padded", action="store_true")
    parser.add_argument("--cpu-time", action="store_true")
    given = parser.parse_args()
    clock = time.process_time if given.cpu_time else time.perf_counter
    ours, theirs = make_models(given.blocks)
    calls = make_calls(ours, theirs, given.grid, given.text_tokens, padded=given.padded)
    with torch.no_grad():
        a, b = (call() for call in calls)
    print(
        f"width {SIZES.hidden_size}, {given.blocks} blocks, fp32, {torch.get_num_threads()} threads; "
        f"largest difference {(a - b).abs().max():.1e}"
    )
    compare("sampling step", *map(guided, calls), given.rounds, clock)
    network = LoRANetwork(ours, rank=RANK, alpha=RANK)
    theirs.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS))
    theirs.enable_gradient_checkpointing()
    theirs.train()
    ours.gradient_checkpointing = True
    learning = [parameter for parameter in theirs.parameters() if parameter.requires_grad]
    assert sum(map(Tensor.numel, learning)) == network.num_parameters
    compare(
        "training step",
        trained(calls[0], list(network.parameters())),
        trained(calls[1], learning),
        given.rounds,
        clock,
    )


if __name__ == "__main__":
    main()
