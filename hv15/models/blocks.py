"""The blocks of the transformer: the two-stream block (MMDiT, Esser et al. 2024) and its parts.

Attribute names are the official checkpoint's. Linears are called as modules, because LoRA and quantisation replace them.
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
        for stream in ("img", "txt"):
            self.add_module(f"{stream}_mod", Modulation(hidden_size))
            for name in ("q", "k", "v", "proj"):
                self.add_module(f"{stream}_attn_{name}", nn.Linear(hidden_size, hidden_size))
            for name in ("q_norm", "k_norm"):
                self.add_module(f"{stream}_attn_{name}", HeadNorm(hidden_size // num_heads))
            mlp = MLP(hidden_size, int(hidden_size * mlp_ratio), nn.GELU(approximate="tanh"))
            self.add_module(f"{stream}_mlp", mlp)

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

        img_q, img_k, img_v = self._qkv("img", modulate(img, img_shift1, img_scale1))  # (B, N, H, D) each
        txt_q, txt_k, txt_v = self._qkv("txt", modulate(txt, txt_shift1, txt_scale1))  # (B, M, H, D) each
        q = torch.cat([rotate(img_q, rope), txt_q], dim=1)  # (B, N + M, H, D); condition tokens have no position
        k = torch.cat([rotate(img_k, rope), txt_k], dim=1)
        v = torch.cat([img_v, txt_v], dim=1)
        joint = attend(q, k, v, [image_tokens + length for length in lengths], backend=backend)
        img_attn, txt_attn = joint[:, :image_tokens], joint[:, image_tokens:]

        img = torch.addcmul(img, img_gate1, self.img_attn_proj(img_attn))
        txt = torch.addcmul(txt, txt_gate1, self.txt_attn_proj(txt_attn))
        img = torch.addcmul(img, img_gate2, self.img_mlp(modulate(img, img_shift2, img_scale2)))
        txt = torch.addcmul(txt, txt_gate2, self.txt_mlp(modulate(txt, txt_shift2, txt_scale2)))
        return img, txt

    def _qkv(self, stream: str, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        part = {name: getattr(self, f"{stream}_attn_{name}") for name in ("q", "k", "v", "q_norm", "k_norm")}
        q, k, v = (part[name](x).unflatten(-1, (self.num_heads, -1)) for name in ("q", "k", "v"))
        return part["q_norm"](q), part["k_norm"](k), v


class FinalLayer(nn.Module):
    """Modulated norm and the projection to latent channels: [B, N, hidden] -> [B, N, C]."""

    def __init__(self, hidden_size: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, out_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 2 * hidden_size))

    def forward(self, x: Tensor, vec: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(vec).unsqueeze(1).chunk(2, dim=-1)
        return self.linear(modulate(x, shift, scale))
