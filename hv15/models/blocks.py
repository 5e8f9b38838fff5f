"""The blocks of the transformer: the two-stream block (MMDiT, Esser et al. 2024) and its parts.

Attributes have the official checkpoint's names. LoRA hooks into linear layers and quantisation replaces them, so they
are computed by `hv15.models.adapted`. Without gradients, results are written where they stay.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hv15.models.adapted import gated_linear, linear, linear_gelu, linears
from hv15.models.attention import ATTENTION, Attention
from hv15.models.passes import head_norm, modulate
from hv15.models.weights.module import Module
from hv15.models.windows import MOST_TOKENS, inside, windows

Mod = Sequence[Tensor]
"""Shift, scale, gate before attention and before the MLP: six tensors [B, 1, hidden]."""


QKV = tuple[Tensor, Tensor, Tensor]
"""Queries, keys and values."""


class HeadNorm(Module):
    """RMS norm of each head of q or k, [B, N, H, D], and its rotation."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(head_dim))

    def forward(self, x: Tensor, rope: Tensor | None = None, out: Tensor | None = None) -> Tensor:
        """Normalise x [B, N, H, D] and rotate it by `rope`, the table of its tokens; see `head_norm`."""
        return head_norm(x, self.weight, rope, out)


class Modulation(Module):
    """Shift, scale and gate for attention and for the MLP, from the time vector: [B, hidden] -> 6 x [B, 1, hidden]."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, 6 * hidden_size)

    def forward(self, vec: Tensor) -> tuple[Tensor, ...]:
        return linear(self.linear, F.silu(vec)).unsqueeze(1).chunk(6, dim=-1)


class MLP(Module):
    """Two linears around a GELU (tanh form) or SiLU: [B, N, hidden] -> [B, N, hidden]."""

    def __init__(self, hidden_size: int, mlp_size: int, activation: nn.Module) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, mlp_size)
        self.act = activation
        self.fc2 = nn.Linear(mlp_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return linear(self.fc2, self.inner(x))

    def inner(self, x: Tensor) -> Tensor:
        """Return the input of the second linear: [B, N, hidden] -> [B, N, mlp_size]."""
        return linear_gelu(self.fc1, x) if isinstance(self.act, nn.GELU) else self.act(linear(self.fc1, x))


class DoubleBlock(Module):
    """Image and condition tokens keep their own weights and meet in one attention."""

    def __init__(self, hidden_size: int, num_heads: int, mlp_size: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        head_dim = hidden_size // num_heads

        self.img_mod = Modulation(hidden_size)
        self.img_attn_q = nn.Linear(hidden_size, hidden_size)
        self.img_attn_k = nn.Linear(hidden_size, hidden_size)
        self.img_attn_v = nn.Linear(hidden_size, hidden_size)
        self.img_attn_q_norm = HeadNorm(head_dim)
        self.img_attn_k_norm = HeadNorm(head_dim)
        self.img_attn_proj = nn.Linear(hidden_size, hidden_size)
        self.img_mlp = MLP(hidden_size, mlp_size, nn.GELU(approximate="tanh"))

        self.txt_mod = Modulation(hidden_size)
        self.txt_attn_q = nn.Linear(hidden_size, hidden_size)
        self.txt_attn_k = nn.Linear(hidden_size, hidden_size)
        self.txt_attn_v = nn.Linear(hidden_size, hidden_size)
        self.txt_attn_q_norm = HeadNorm(head_dim)
        self.txt_attn_k_norm = HeadNorm(head_dim)
        self.txt_attn_proj = nn.Linear(hidden_size, hidden_size)
        self.txt_mlp = MLP(hidden_size, mlp_size, nn.GELU(approximate="tanh"))

    def forward(
        self,
        img: Tensor,
        txt: Tensor,
        vec: Tensor,
        rope: Tensor,
        lengths: list[int],
        attention: Attention = ATTENTION,
        most_tokens: int = MOST_TOKENS,
    ) -> tuple[Tensor, Tensor]:
        """Compute one block.

        Without gradients it works in windows of image tokens; with gradients, `hv15.models.recompute` does so.

        Args:
            img: image tokens [B, N, hidden], N = F*H*W.
            txt: condition tokens [B, M, hidden].
            vec: time vector [B, hidden].
            rope: `rope_table` of the N image tokens.
            lengths: number of valid condition tokens of each sample.
            most_tokens: the largest number of tokens in a window.

        Returns:
            The image tokens [B, N, hidden] and condition tokens [B, M, hidden] after the block.
        """
        image_tokens = img.shape[1]
        img_mod, txt_mod = self.img_mod(vec), self.txt_mod(vec)
        if torch.is_grad_enabled():
            image, text = self.image_qkv(img, img_mod, rope), self.text_qkv(txt, txt_mod)
            q, k, v = (torch.cat(pair, 1) for pair in zip(image, text, strict=True))
        else:
            q, k, v = self.joint_qkv(img, txt, img_mod, txt_mod, rope, most_tokens)
        joint = attention(q, k, v, [image_tokens + length for length in lengths])  # (B, N + M, hidden)
        del q, k, v
        img_attn, txt_attn = joint[:, :image_tokens], joint[:, image_tokens:]
        parts = windows(image_tokens, most_tokens)
        if torch.is_grad_enabled() or len(parts) == 1:
            img = self.image_out(img, img_attn, img_mod)
        else:
            out = torch.empty(img.shape, dtype=img.dtype, device=img.device)
            for part in parts:
                with inside(part):
                    self.image_out(img[:, part.slice], img_attn[:, part.slice], img_mod, out[:, part.slice])
            img = out
        return img, self.text_out(txt, txt_attn, txt_mod)

    def image_qkv(self, img: Tensor, mod: Mod, rope: Tensor, out: QKV | None = None) -> QKV:
        """Return q, k and v of image tokens [B, N, hidden], [B, N, H, D] each.

        Args:
            mod: of the image stream.
            rope: the part of the table for these tokens.
            out: without gradients, where to write the result.
        """
        layers = self.img_attn_q, self.img_attn_k, self.img_attn_v
        return self._qkv(layers, (self.img_attn_q_norm, self.img_attn_k_norm), img, mod, rope, out)

    def text_qkv(self, txt: Tensor, mod: Mod, out: QKV | None = None) -> QKV:
        """Return q, k and v of condition tokens [B, M, hidden]; as `image_qkv`, but these tokens have no position."""
        layers = self.txt_attn_q, self.txt_attn_k, self.txt_attn_v
        return self._qkv(layers, (self.txt_attn_q_norm, self.txt_attn_k_norm), txt, mod, None, out)

    def _qkv(
        self,
        layers: Sequence[nn.Linear],
        norms: tuple[HeadNorm, HeadNorm],
        x: Tensor,
        mod: Mod,
        rope: Tensor | None,
        out: QKV | None,
    ) -> QKV:
        normed = modulate(x, mod[0], mod[1])
        if out is None:
            q, k, v = (self._heads(each) for each in linears(layers, normed))
            return norms[0](q, rope), norms[1](k, rope), v
        if len(x) == 1:  # products are written in place, and the norms work there
            linears(layers, normed, [each.flatten(2) for each in out])
            q, k = out[:2]
        else:
            linears_out = (None, None, out[2].flatten(2))
            q, k = (self._heads(each) for each in linears(layers, normed, linears_out)[:2])
        norms[0](q, rope, out[0])
        norms[1](k, rope, out[1])
        return out

    def image_out(self, img: Tensor, attended: Tensor, mod: Mod, out: Tensor | None = None) -> Tensor:
        """Return image tokens [B, N, hidden] after attention and MLP.

        Args:
            attended: the attention's output for these tokens [B, N, hidden].
            mod: of the image stream.
            out: without gradients, where to write the result.
        """
        img = gated_linear(img, mod[2], self.img_attn_proj, attended)
        inner = self.img_mlp.inner(modulate(img, mod[3], mod[4]))
        return gated_linear(img, mod[5], self.img_mlp.fc2, inner, out)

    def text_out(self, txt: Tensor, attended: Tensor, mod: Mod) -> Tensor:
        """Return condition tokens [B, M, hidden] after attention and MLP; as `image_out`."""
        txt = gated_linear(txt, mod[2], self.txt_attn_proj, attended)
        return gated_linear(txt, mod[5], self.txt_mlp.fc2, self.txt_mlp.inner(modulate(txt, mod[3], mod[4])))

    @torch.no_grad()
    def joint_qkv(self, img: Tensor, txt: Tensor, img_mod: Mod, txt_mod: Mod, rope: Tensor, most_tokens: int) -> QKV:
        """Return q, k, v [B, N + M, H, D] of both streams, computed window by window into their final memory."""
        batch, tokens = img.shape[0], img.shape[1] + txt.shape[1]
        head_dim = img.shape[2] // self.num_heads
        shape = batch, tokens, self.num_heads, head_dim
        q, k, v = (torch.empty(shape, dtype=img.dtype, device=img.device) for _ in range(3))

        def place(part: slice) -> QKV:
            return q[:, part], k[:, part], v[:, part]

        for part in windows(img.shape[1], most_tokens):
            with inside(part):
                self.image_qkv(img[:, part.slice], img_mod, rope[part.slice], place(part.slice))
        self.text_qkv(txt, txt_mod, place(slice(img.shape[1], None)))
        return q, k, v

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1))  # (B, N, H, D)


class FinalLayer(Module):
    """Modulated norm and the projection to latent channels: [B, N, hidden] -> [B, N, C]."""

    def __init__(self, hidden_size: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, out_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 2 * hidden_size))

    def forward(self, x: Tensor, vec: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(vec).unsqueeze(1).chunk(2, dim=-1)
        return self.linear(modulate(x, shift, scale))
