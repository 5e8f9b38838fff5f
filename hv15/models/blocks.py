"""The blocks of the transformer: the two-stream block (MMDiT, Esser et al. 2024) and its parts.

Attribute names are the official checkpoint's. Linears are called as modules: LoRA and quantisation replace them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hv15.models.attention import attend
from hv15.models.rope import rotate


class HeadNorm(nn.Module):
    """RMS norm of each head of q or k: computed in fp32, cast back, then weighted."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(head_dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, eps=1e-6).to(x.dtype) * self.weight


class Modulation(nn.Module):
    """Shift, scale and gate for attention and for the MLP, from the time vector: [B, hidden] -> 6 x [B, 1, hidden]."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, 6 * hidden_size)

    def forward(self, vec: Tensor) -> tuple[Tensor, ...]:
        return self.linear(F.silu(vec)).unsqueeze(1).chunk(6, dim=-1)


class MLP(nn.Module):
    """Two linears around a GELU (tanh form) or SiLU."""

    def __init__(self, hidden_size: int, mlp_size: int, activation: nn.Module) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, mlp_size)
        self.act = activation
        self.fc2 = nn.Linear(mlp_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm without weights (eps 1e-6), then x * (1 + scale) + shift; shift and scale are [B, 1, hidden]."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale)


class DoubleBlock(nn.Module):
    """Image and condition tokens keep their own weights and meet in one attention."""

    def __init__(self, hidden_size: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        head_dim, mlp_size = hidden_size // num_heads, int(hidden_size * mlp_ratio)

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
        self, img: Tensor, txt: Tensor, vec: Tensor, rope: Tensor, lengths: list[int], backend: str = "sdpa"
    ) -> tuple[Tensor, Tensor]:
        """One block.

        Args:
            img: image tokens [B, N, hidden], N = F*H*W.
            txt: condition tokens [B, M, hidden].
            vec: time vector [B, hidden].
            rope: `rope_table` of the N image tokens.
            lengths: valid condition tokens of each sample.
        """
        image_tokens = img.shape[1]
        img_shift1, img_scale1, img_gate1, img_shift2, img_scale2, img_gate2 = self.img_mod(vec)
        txt_shift1, txt_scale1, txt_gate1, txt_shift2, txt_scale2, txt_gate2 = self.txt_mod(vec)

        x = modulate(img, img_shift1, img_scale1)  # (B, N, hidden)
        img_q = rotate(self.img_attn_q_norm(self._heads(self.img_attn_q(x))), rope)  # (B, N, H, D)
        img_k = rotate(self.img_attn_k_norm(self._heads(self.img_attn_k(x))), rope)
        img_v = self._heads(self.img_attn_v(x))

        x = modulate(txt, txt_shift1, txt_scale1)  # (B, M, hidden)
        txt_q = self.txt_attn_q_norm(self._heads(self.txt_attn_q(x)))  # (B, M, H, D); these tokens have no position
        txt_k = self.txt_attn_k_norm(self._heads(self.txt_attn_k(x)))
        txt_v = self._heads(self.txt_attn_v(x))

        q, k, v = torch.cat([img_q, txt_q], 1), torch.cat([img_k, txt_k], 1), torch.cat([img_v, txt_v], 1)
        joint = attend(q, k, v, [image_tokens + length for length in lengths], backend)
        img_attn, txt_attn = joint[:, :image_tokens], joint[:, image_tokens:]

        img = torch.addcmul(img, img_gate1, self.img_attn_proj(img_attn))
        txt = torch.addcmul(txt, txt_gate1, self.txt_attn_proj(txt_attn))
        img = torch.addcmul(img, img_gate2, self.img_mlp(modulate(img, img_shift2, img_scale2)))
        txt = torch.addcmul(txt, txt_gate2, self.txt_mlp(modulate(txt, txt_shift2, txt_scale2)))
        return img, txt

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1))  # (B, N, H, D)


class FinalLayer(nn.Module):
    """Modulated norm and the projection to latent channels: [B, N, hidden] -> [B, N, C]."""

    def __init__(self, hidden_size: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, out_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 2 * hidden_size))

    def forward(self, x: Tensor, vec: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(vec).unsqueeze(1).chunk(2, dim=-1)
        return self.linear(modulate(x, shift, scale))
