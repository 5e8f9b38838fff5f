"""Kernels and memory traffic of one transformer block, counted on tensors without data, so on any machine.

    python bench/bench_kernels.py

At the real width, bf16, 832x480x25 frames (10,920 tokens) and 120 text tokens, LoRA of rank 16. Counted is each
operation of torch that neither only makes a view nor only allocates; its traffic is the bytes of its inputs and its
outputs. What GPUs do may differ: torch launches several kernels for some operations (sums, a layer norm's backward
pass, casts of many tensors), and caches save traffic of small tensors. `without fused_kernels` is the same without
Triton.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from hv15.lora import LoRANetwork
from hv15.models import Condition, DiT, DiTConfig, pass_kernels

LATENT = 7, 30, 52
TEXT_TOKENS, RANK = 120, 16
NO_KERNEL = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "detach"}


class Counts(NamedTuple):
    kernels: int
    gigabytes: float
    operations: Counter[str]


class Count(TorchDispatchMode):
    """Counts the operations inside, by name, and the bytes that they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.bytes = 0

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1]
        returns = func._schema.returns
        is_view = bool(returns) and all(each.alias_info and not each.alias_info.is_write for each in returns)
        if name not in NO_KERNEL and not is_view:
            self.operations[name] += 1
            self.bytes += _bytes(args) + _bytes(result)
        return result


def count(*, lora: bool, training: bool) -> Counts:
    """Count one block: the difference between models of three and of two blocks."""
    few, more = (_run(blocks, lora=lora, training=training) for blocks in (2, 3))
    operations = more.operations - few.operations
    return Counts(operations.total(), (more.bytes - few.bytes) / 1e9, operations)


def _run(blocks: int, *, lora: bool, training: bool) -> Count:
    config = DiTConfig(num_blocks=blocks)
    with torch.device("meta"):
        dit = DiT(config).to(torch.bfloat16).requires_grad_(False)
        x = torch.randn(1, config.in_channels, *LATENT, dtype=torch.bfloat16)
        t = torch.full((1,), 500.0)
        text = torch.randn(1, TEXT_TOKENS, config.text_dim, dtype=torch.bfloat16)
        cond = Condition(text, [TEXT_TOKENS], torch.zeros(1, 0, config.glyph_dim), [0])
        network = LoRANetwork(dit, rank=RANK, alpha=RANK) if lora else None
        dit.gradient_checkpointing = training
        with Count() as counted, torch.set_grad_enabled(training):
            velocity = dit(x, t, cond)
            if training:
                velocity.float().square().mean().backward()
    del network
    return counted


def _bytes(value: object) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(map(_bytes, value)) if isinstance(value, list | tuple) else 0


ROWS = {
    "forward": {"lora": False, "training": False},
    "forward with LoRA": {"lora": True, "training": False},
    "training step, checkpointed": {"lora": True, "training": True},
}


def main() -> None:
    print(f"{'one block':44}{'kernels':>8}{'GB':>8}   most frequent")
    for enabled in (True, False):
        pass_kernels.ENABLED = enabled
        for name, options in ROWS.items():
            found = count(**options)
            label = name if enabled else f"{name}, without fused_kernels"
            most = ", ".join(f"{each} {times}" for each, times in found.operations.most_common(5))
            print(f"{label:44}{found.kernels:8}{found.gigabytes:8.2f}   {most}")


if __name__ == "__main__":
    main()
