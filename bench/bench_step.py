"""Peak memory and time of one training step of a mid-size model, for each memory option, as ratios to the plain step.

    OMP_NUM_THREADS=1 python bench/bench_step.py [--rounds 5] [--grid 5 16 24] [--window 512]

Width 512, 12 blocks, LoRA of rank 16 on all linear layers of the blocks, float32 on the CPU. "Plain" is without
gradient checkpointing. Time: the options' steps are interleaved, medians. Device memory: the same step on the meta
device, weights included, where the machine's own memory is another's; attention is the ideal fused kernel.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from hv15.config.train import TrainSettings
from hv15.lora import LoRANetwork
from hv15.memory import PeakMemory
from hv15.models import Condition, DiT, DiTConfig
from hv15.models.ready import set_up
from hv15.models.weights.quantised import QuantisedLinear, replace_linears
from hv15.models.weights.swap import BlockSwap

SIZES = DiTConfig(
    hidden_size=512, num_heads=8, num_blocks=12, rope_dims=(8, 28, 28), text_dim=512, glyph_dim=128, glyph_hidden=128
)
MIB = 2**20
TEXT_TOKENS, RANK = 64, 16
NOTHING = {"gradient_checkpointing": False}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": NOTHING,
    "split_attn": {**NOTHING, "split_attn": True},
    "quantize: fp8": {**NOTHING, "quantize": "fp8"},
    "quantize: int8": {**NOTHING, "quantize": "int8"},
    "quantize: nf4": {**NOTHING, "quantize": "nf4"},
    "gradient_checkpointing": {},
    "  in windows": {"windows": True},
    "  + cpu_offload": {"windows": True, "gradient_checkpointing_cpu_offload": True},
    "  + blocks_to_swap: 10": {"windows": True, "blocks_to_swap": 10},
    "  + both": {"windows": True, "blocks_to_swap": 10, "gradient_checkpointing_cpu_offload": True},
    "  + both + fp8": {
        "windows": True, "blocks_to_swap": 10, "gradient_checkpointing_cpu_offload": True, "quantize": "fp8"
    },
}  # fmt: skip


def make(options: dict[str, Any], device: str, window: int) -> DiT:
    """A ready transformer, as `load_ready` makes it from a file."""
    options = dict(options)
    windows = options.pop("windows", False)
    settings = TrainSettings.model_validate(options)
    with torch.device(device):
        torch.manual_seed(0)
        dit = DiT(SIZES).requires_grad_(False)
    if settings.quantize != "none":
        plain = {name: part for name, part in dit.double_blocks.named_modules() if isinstance(part, torch.nn.Linear)}
        replace_linears(dit.double_blocks, settings.quantize, lambda _name: True)
        for name, part in plain.items():
            layer = dit.double_blocks.get_submodule(name)
            assert isinstance(layer, QuantisedLinear)
            layer.bias = part.bias
            if device != "meta":
                layer.quantise_(part.weight)
    set_up(dit, settings, device)
    dit.most_tokens = window if windows else 10**9
    return dit


def make_step(options: dict[str, Any], device: str, grid: list[int], window: int) -> Callable[[], Any]:
    """A training step; on the meta device it returns the memory that it took."""
    dit = make(options, device, window)
    network = LoRANetwork(dit, rank=RANK, alpha=RANK)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    with torch.device(device):
        x, t = torch.randn(1, SIZES.in_channels, *grid), torch.full((1,), 500.0)
        text = torch.randn(1, TEXT_TOKENS, SIZES.text_dim)
        cond = Condition(text, [TEXT_TOKENS], torch.zeros(1, 0, SIZES.glyph_dim), [0])

    def step() -> None:
        dit(x, t, cond).float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def followed() -> int:
        with PeakMemory("meta") as memory:
            memory.assign("weights", dit, network)
            swaps = [hook for hook in dit.block_hooks if isinstance(hook, BlockSwap)]
            memory.assign("weights", *(slot.memory for swap in swaps for slot in swap.slots))
            step()
        return memory.peak

    return followed if device == "meta" else step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="0: memory alone")
    parser.add_argument("--grid", type=int, nargs=3, default=[5, 16, 24], metavar=("FRAMES", "ROWS", "COLUMNS"))
    parser.add_argument("--window", type=int, default=512, help="tokens that are worked on at a time")
    options = parser.parse_args()
    sizes = options.grid, options.window
    frames, rows, columns = options.grid
    count = frames * rows * columns
    print(f"{count} + {TEXT_TOKENS} tokens, windows of {options.window}, {torch.get_num_threads()} threads")
    print(f"{'':28}{'peak MiB':>10}{'ratio':>8}", flush=True)
    plain = 0
    for name, settings in OPTIONS.items():
        peak = make_step(settings, "meta", *sizes)()
        plain = plain or peak
        print(f"{name:28}{peak / MIB:10.0f}{peak / plain:8.2f}", flush=True)
    if not options.rounds:
        return
    steps = {name: make_step(settings, "cpu", *sizes) for name, settings in OPTIONS.items()}
    times: dict[str, list[float]] = {name: [] for name in OPTIONS}
    for step in steps.values():
        step()  # buffers are made
    for _ in range(options.rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    median = {name: statistics.median(found) for name, found in times.items()}
    print(f"{'':28}{'step s':>10}{'ratio':>8}")
    for name, seconds in median.items():
        print(f"{name:28}{seconds:10.2f}{seconds / median['plain']:8.2f}")


if __name__ == "__main__":
    main()
