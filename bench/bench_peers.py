"""Sampling and LoRA training steps at the real width, against diffusers (with peft) in the same run.

    OMP_NUM_THREADS=2 python bench/bench_peers.py [--blocks 2] [--grid 3 16 16] [--rounds 9] [--steps 2] [--padded]
        [--cpu-time] [--sampling-only]

Both hold the same weights (fp32) and get the same inputs; their runs are interleaved, and the medians are compared, so
that a busy machine slows both alike. A sampling step is a guided one: two forward passes. "Pipeline" is a sample of
`--steps` guided steps by diffusers' own pipeline, with encoded texts given, against our denoising loop on the same
noise and texts; the pipeline pads each text to 1000 tokens, 256 of glyphs and 729 of an image. A training step is
forward, backward with gradient checkpointing, and the update of the LoRA, which is on the same layers in both.
`--padded` gives diffusers the condition tokens as its pipeline pads them: 1000 of text and 256 of glyphs. `--cpu-time`
measures the time of the processor instead of the clock's: with one thread, that is fair on a busy machine, too.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, HunyuanVideo15Pipeline, HunyuanVideo15Transformer3DModel
from diffusers.guiders import ClassifierFreeGuidance
from peft import LoraConfig
from torch import Tensor, nn

from hv15.lora import LoRANetwork
from hv15.models import Condition, DiT, DiTConfig
from hv15.models.layouts import reading_recipes
from hv15.sample.denoise import denoise
from hv15.sample.schedule import sigmas

SIZES = replace(DiTConfig(), text_dim=512, glyph_dim=128, refiner_blocks=1)
RANK = 16
PADDED = 1000, 256
NEGATIVE_TOKENS = 8
SCALE, SHIFT = 6.0, 5.0
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


class VAESizes:
    """Stands for the pipeline's VAE, which is asked for its sizes alone, as the result is latents."""

    config = SimpleNamespace(latent_channels=SIZES.latent_channels)
    temporal_compression_ratio, spatial_compression_ratio = 4, 16


def make_pipeline_calls(
    ours: DiT, theirs: HunyuanVideo15Transformer3DModel, grid: list[int], text_tokens: int, steps: int
) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """Whole guided samples from the same noise and texts: by our loop, and by diffusers' pipeline, which pads."""
    frames, rows, columns = grid
    noise = torch.randn(1, SIZES.latent_channels, *grid)
    prompt, negative = (torch.randn(1, tokens, SIZES.text_dim) for tokens in (text_tokens, NEGATIVE_TOKENS))
    glyphs = torch.zeros(1, 0, SIZES.glyph_dim)
    conditions = [Condition(text, [text.shape[1]], glyphs, [0]) for text in (prompt, negative)]
    pipeline = HunyuanVideo15Pipeline(
        text_encoder=None,
        tokenizer=None,
        transformer=theirs,
        vae=VAESizes(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        text_encoder_2=None,
        tokenizer_2=None,
        guider=ClassifierFreeGuidance(guidance_scale=SCALE),
    )
    pipeline.set_progress_bar_config(disable=True)
    padded = {}
    for kind, text in (("prompt", prompt), ("negative_prompt", negative)):
        count = text.shape[1]
        padded |= {
            f"{kind}_embeds": nn.functional.pad(text, (0, 0, 0, PADDED[0] - count)),
            f"{kind}_embeds_mask": (torch.arange(PADDED[0]) < count).long()[None],
            f"{kind}_embeds_2": torch.zeros(1, PADDED[1], SIZES.glyph_dim),
            f"{kind}_embeds_mask_2": torch.zeros(1, PADDED[1], dtype=torch.long),
        }
    size = {"height": 16 * rows, "width": 16 * columns, "num_frames": 4 * frames - 3}
    return (
        lambda: denoise(ours, noise, conditions[0], conditions[1], sigmas(steps, SHIFT), SCALE),
        lambda: pipeline(
            latents=noise, num_inference_steps=steps, output_type="latent", return_dict=False, **size, **padded
        )[0],
    )


def guided(call: Callable[[], Tensor]) -> Step:
    @torch.no_grad()
    def step() -> Tensor:
        with_text, without = call(), call()
        return without + SCALE * (with_text - without)

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
        f"{name:<20} ours {median['ours']:7.3f} s   diffusers {median['diffusers']:7.3f} s   ratio {ratio:.3f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--grid", type=int, nargs=3, default=[3, 16, 16], metavar=("FRAMES", "ROWS", "COLUMNS"))
    parser.add_argument("--text-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=2, help="of a sample by the pipeline")
    parser.add_argument("--padded", action="store_true")
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--sampling-only", action="store_true")
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
    samples = make_pipeline_calls(ours, theirs, given.grid, given.text_tokens, given.steps)
    a, b = (call() for call in samples)
    print(f"pipeline: largest difference {(a - b).abs().max():.1e}")
    compare(f"pipeline, {given.steps} steps", *samples, given.rounds, clock)
    if given.sampling_only:
        return
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
