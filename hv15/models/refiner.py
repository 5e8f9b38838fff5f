"""The token refiner: two small transformer blocks that adapt Qwen's states to the model and depend on the timestep.

The timestep acts only through gates behind attention and MLP. So what comes before the first gate is the same in all
steps of a sample: it is computed by `TokenRefiner.prepare`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hv15.models.attention import attend
from hv15.models.blocks import MLP
from hv15.models.embeddings import TimestepEmbedder
from hv15.models.weights.module import Module


class PreparedText(NamedTuple):
    """What the refiner computes of text states before the timestep acts."""

    tokens: Tensor
    """[B, L, hidden]."""
    attended: Tensor
    """What the first block's attention gives, before its gate [B, L, hidden]."""
    pooled: Tensor
    """The mean state, embedded [B, hidden]."""


class TextEmbedder(Module):
    """The mean text state as a vector: [B, text_dim] -> [B, hidden]."""

    def __init__(self, text_dim: int, hidden_size: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(text_dim, hidden_size)
        self.linear_2 = nn.Linear(hidden_size, hidden_size)

    def forward(self, mean: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(mean)))


class RefinerBlock(Module):
    """Pre-norm attention and MLP on tokens [B, L, hidden], each gated by the context [B, hidden]."""

    def __init__(self, hidden_size: int, num_heads: int, mlp_size: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(hidden_size, eps=1e-6)
        self.self_attn_qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.self_attn_proj = nn.Linear(hidden_size, hidden_size)
        self.norm2 = nn.LayerNorm(hidden_size, eps=1e-6)
        self.mlp = MLP(hidden_size, mlp_size, nn.SiLU())
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 2 * hidden_size))

    def attended(self, x: Tensor, lengths: list[int]) -> Tensor:
        """Return what attention gives the tokens x [B, L, hidden], before its gate: no context is needed."""
        qkv = self.self_attn_qkv(self.norm1(x)).unflatten(-1, (3, self.num_heads, -1))  # (B, L, 3, H, D)
        q, k, v = qkv.unbind(2)
        return self.self_attn_proj(attend(q, k, v, lengths))

    def forward(self, x: Tensor, attended: Tensor, context: Tensor) -> Tensor:
        """Return the tokens after the block, from x and `attended` [B, L, hidden] and the context [B, hidden]."""
        gate1, gate2 = self.adaLN_modulation(context).unsqueeze(1).chunk(2, dim=-1)
        x = x + gate1 * attended
        return x + gate2 * self.mlp(self.norm2(x))


class TokenRefinerStack(Module):
    """The blocks under the name that the checkpoint gives them: [B, L, hidden] -> [B, L, hidden]."""

    def __init__(self, hidden_size: int, num_heads: int, mlp_size: int, num_blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(RefinerBlock(hidden_size, num_heads, mlp_size) for _ in range(num_blocks))

    def first_attended(self, x: Tensor, lengths: list[int]) -> Tensor:
        """Return `RefinerBlock.attended` of the first block, [B, L, hidden]."""
        first = self.blocks[0]
        assert isinstance(first, RefinerBlock)
        return first.attended(x, lengths)

    def forward(self, x: Tensor, attended: Tensor, context: Tensor, lengths: list[int]) -> Tensor:
        for index, block in enumerate(self.blocks):
            assert isinstance(block, RefinerBlock)
            x = block(x, block.attended(x, lengths) if index else attended, context)
        return x


class TokenRefiner(Module):
    """Text states [B, L, text_dim] and timestep [B] -> condition tokens [B, L, hidden]."""

    def __init__(self, text_dim: int, hidden_size: int, num_heads: int, mlp_size: int, num_blocks: int) -> None:
        super().__init__()
        self.input_embedder = nn.Linear(text_dim, hidden_size)
        self.t_embedder = TimestepEmbedder(hidden_size)
        self.c_embedder = TextEmbedder(text_dim, hidden_size)
        self.individual_token_refiner = TokenRefinerStack(hidden_size, num_heads, mlp_size, num_blocks)

    def prepare(self, text: Tensor, lengths: list[int]) -> PreparedText:
        """Compute what does not depend on the timestep, of text states [B, L, text_dim] with so many valid ones."""
        # The mean is over valid tokens only, and in fp32, because a sum of a thousand bf16 states is inaccurate.
        means = [state[:length].float().mean(0) for state, length in zip(text, lengths, strict=True)]
        pooled = self.c_embedder(torch.stack(means).to(text.dtype))
        tokens = self.input_embedder(text)
        return PreparedText(tokens, self.individual_token_refiner.first_attended(tokens, lengths), pooled)

    def forward(self, text: PreparedText, timestep: Tensor, lengths: list[int]) -> Tensor:
        """Return condition tokens [B, L, hidden] for the timestep [B]."""
        context = self.t_embedder(timestep, self.input_embedder.weight.dtype) + text.pooled
        return self.individual_token_refiner(text.tokens, text.attended, context, lengths)
