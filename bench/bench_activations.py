"""Peak memory of one block of the real model at 720p x 121 frames, beside its weights: in training and in sampling.

    python bench/bench_activations.py

The meta device runs the real code and every storage is followed; attention is the ideal fused kernel. All in bfloat16;
training is a checkpointed forward and backward pass with a LoRA of rank 32 on all 14 linear layers. Counted are the
tokens that enter and leave, their gradients, the RoPE table and all that is made between.
"""

from __future__ import annotations

import torch

from hv15.lora import LoRANetwork
from hv15.memory import PeakMemory
from hv15.models import DiT, DiTConfig
from hv15.models.attention import Attention
from hv15.models.recompute import BlockCall, checkpointed
from hv15.models.windows import MOST_TOKENS

GRID, CONDITION_TOKENS, RANK = (31, 45, 80), 200, 32  # 720 x 1280 pixels, 121 frames
TOKENS = GRID[0] * GRID[1] * GRID[2]
GIB = 2**30


def block_memory(*, train: bool, most_tokens: int = MOST_TOKENS, split: bool = False) -> PeakMemory:
    """Run a block forward, and back if `train`, and return the memory that was followed."""
    with torch.device("meta"):
        dit = DiT(DiTConfig(num_blocks=1)).to(torch.bfloat16).requires_grad_(False)
    if train:
        LoRANetwork(dit, rank=RANK, alpha=RANK)
    width = dit.config.hidden_size
    with PeakMemory("meta") as memory, torch.set_grad_enabled(train):
        rope = dit.rope_tables(GRID, torch.device("meta"))
        img = torch.empty(1, TOKENS, width, dtype=dit.dtype, device="meta", requires_grad=train)
        txt = torch.empty(1, CONDITION_TOKENS, width, dtype=dit.dtype, device="meta", requires_grad=train)
        vec = torch.empty(1, width, dtype=dit.dtype, device="meta")
        call = BlockCall(dit.double_blocks[0], 0, rope, [CONDITION_TOKENS], Attention(split=split), most_tokens)
        if train:
            out, _ = checkpointed(call, img, txt, vec)
            out.backward(torch.empty_like(out))
        else:
            call(img, txt, vec)
    return memory


def training_peak() -> float:
    """In GiB."""
    return block_memory(train=True).peak / GIB


def sampling_peak() -> float:
    """In GiB."""
    return block_memory(train=False).peak / GIB


def main() -> None:
    copy = TOKENS * DiTConfig().hidden_size * 2 / GIB
    print(f"{TOKENS:,} + {CONDITION_TOKENS} tokens, one copy {copy:.2f} GiB; beside the weights of the block")
    print(f"{'GiB':28}{'training':>10}{'copies':>8}{'sampling':>10}{'copies':>8}")
    for name, most, split in (
        ("windows of 8192", MOST_TOKENS, False),
        ("the same, split_attn", MOST_TOKENS, True),
        ("windows of 4096", 4096, False),
        ("windows of 16384", 16384, False),
        ("all tokens at once", 10**9, False),
    ):
        peaks = [block_memory(train=train, most_tokens=most, split=split).peak / GIB for train in (True, False)]
        print(f"{name:28}" + "".join(f"{peak:10.2f}{peak / copy:8.1f}" for peak in peaks))
    for name, training, sampling in (("musubi-tuner", 10.64, 4.97), ("diffusers", 30.1, 26.1)):  # measured likewise
        print(f"{name:28}{training:10.2f}{training / copy:8.1f}{sampling:10.2f}{sampling / copy:8.1f}")


if __name__ == "__main__":
    main()
