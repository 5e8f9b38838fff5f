"""Kernels and memory traffic of one transformer block, counted on tensors without data, so on any machine.

    python bench/bench_kernels.py

At the real width, bf16, 832x480x25 frames (10,920 tokens) and 120 text tokens, LoRA of rank 16. The plan's own meter
counts (`hv15.plan.meter`). The last two columns are with allocations, which start no kernel and move nothing, as a
count of all operations but views sees them: as writing their result. What GPUs do may differ: torch launches several
kernels for some operations (sums, a layer norm's backward pass, casts of many tensors), and caches save traffic of
small tensors. `without fused_kernels` is the same without Triton.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload

from hv15.lora import LoRANetwork
from hv15.memory import Arguments, NamedArguments
from hv15.models import Condition, DiT, DiTConfig, pass_kernels
from hv15.plan.meter import Meter
from hv15.plan.work import Work

LATENT = 7, 30, 52
TEXT_TOKENS, RANK = 120, 16


class Counts(NamedTuple):
    """Of one block."""

    kernels: int
    gigabytes: float
    operations: Counter[str]
    allocations: int
    allocated: float
    """Gigabytes."""


class NamedMeter(Meter):
    """A meter for tensors without data that also counts each operation by its name, and allocations."""

    def __init__(self) -> None:
        super().__init__("meta")
        self.operations: Counter[str] = Counter()
        self.allocations = self.allocated = 0

    def follow(self, func: OpOverload, args: Arguments, kwargs: NamedArguments, result: object) -> None:
        """Count what a call has made."""
        super().follow(func, args, kwargs, result)
        if "empty" in func._schema.name and isinstance(result, Tensor):
            self.allocations += 1
            self.allocated += result.nbytes

    def count(self, func: OpOverload, kind: str, work: Work) -> None:
        self.operations[func._schema.name.partition("::")[2]] += 1
        super().count(func, kind, work)


def count(*, lora: bool, training: bool) -> Counts:
    """Count one block: the difference between models of three and of two blocks."""
    few, more = (_run(blocks, lora=lora, training=training) for blocks in (2, 3))
    operations = more.operations - few.operations
    return Counts(
        more.launches - few.launches,
        (more.moved - few.moved) / 1e9,
        operations,
        more.allocations - few.allocations,
        (more.allocated - few.allocated) / 1e9,
    )


def _run(blocks: int, *, lora: bool, training: bool) -> NamedMeter:
    config = DiTConfig(num_blocks=blocks)
    with torch.device("meta"):
        dit = DiT(config).to(torch.bfloat16).requires_grad_(False)
        x = torch.randn(1, config.in_channels, *LATENT, dtype=torch.bfloat16)
        t = torch.full((1,), 500.0)
        text = torch.randn(1, TEXT_TOKENS, config.text_dim, dtype=torch.bfloat16)
        cond = Condition(text, [TEXT_TOKENS], torch.zeros(1, 0, config.glyph_dim), [0])
        network = LoRANetwork(dit, rank=RANK, alpha=RANK) if lora else None
        dit.gradient_checkpointing = training
        meter = NamedMeter()
        with meter, torch.set_grad_enabled(training):
            velocity = dit(x, t, cond)
            if training:
                velocity.float().square().mean().backward()
    del network
    return meter


ROWS = {
    "forward": {"lora": False, "training": False},
    "forward with LoRA": {"lora": True, "training": False},
    "training step, checkpointed": {"lora": True, "training": True},
}


def main() -> None:
    print(f"{'one block':54}{'kernels':>8}{'GB':>8}{'all':>8}{'GB':>8}   most frequent")
    for enabled in (True, False):
        pass_kernels.ENABLED = enabled
        for name, options in ROWS.items():
            found = count(**options)
            label = name if enabled else f"{name}, without fused_kernels"
            most = ", ".join(f"{each} {times}" for each, times in found.operations.most_common(5))
            operations, gigabytes = found.kernels + found.allocations, found.gigabytes + found.allocated
            print(f"{label:54}{found.kernels:8}{found.gigabytes:8.2f}{operations:8}{gigabytes:8.2f}   {most}")


if __name__ == "__main__":
    main()
