"""The passes of `hv15.models.pass_kernels` as Triton kernels: one reading and one writing of memory each.

- All arithmetic is fp32, rounded once when it is stored.
- Sums over tokens are made in a fixed order, without atomic operations, so that two runs give the same bits.
- A head's width must be a power of two; other sizes are masked.
- Places in memory are 64-bit wherever they cross samples; within one sample they are below 2^31.
- Triton starts a kernel on torch's current GPU, wherever its tensors are. So each function makes theirs current.
"""

# ruff: noqa: N803  # constants of a kernel are written in capitals

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from hv15.models.pass_kernels import EPS

TOKENS, COLUMNS = 64, 128  # of a tile
SUMMED = 16, 256  # tokens and columns that are read at once for a sum over tokens


@triton.jit
def _head_norm(
    x,
    weight,
    rope,
    out,
    scale,
    tokens,
    heads,
    x_batch,
    x_token,
    out_batch,
    out_token,
    eps,
    ROTATES: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """All heads of one token: x and out (HEADS, WIDTH)."""
    token, batch = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    head, column = tl.arange(0, HEADS), tl.arange(0, WIDTH)
    place = head[:, None] * WIDTH + column[None, :]
    valid = (head < heads)[:, None]
    values = tl.load(x + batch * x_batch + token * x_token + place, mask=valid, other=0.0).to(tl.float32)
    inverse = tl.rsqrt(tl.sum(values * values, 1) / WIDTH + eps)
    tl.store(scale + (batch * tokens + token) * heads + head, inverse, mask=head < heads)
    normed = values * inverse[:, None] * tl.load(weight + column).to(tl.float32)[None, :]
    if ROTATES:
        pair = tl.arange(0, WIDTH // 2)
        cos = tl.load(rope + token * WIDTH + 2 * pair)[None, :]
        sin = tl.load(rope + token * WIDTH + 2 * pair + 1)[None, :]
        a, b = tl.split(tl.reshape(normed, (HEADS, WIDTH // 2, 2)))
        normed = tl.reshape(tl.join(a * cos - b * sin, a * sin + b * cos), (HEADS, WIDTH))
    tl.store(out + batch * out_batch + token * out_token + place, normed.to(out.dtype.element_ty), mask=valid)


@triton.jit
def _head_norm_backward(
    grad,
    x,
    scale,
    weight,
    rope,
    d_x,
    tokens,
    heads,
    grad_batch,
    grad_token,
    x_batch,
    x_token,
    ROTATES: tl.constexpr,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """All heads of one token; d_x is contiguous."""
    token, batch = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    head, column = tl.arange(0, HEADS), tl.arange(0, WIDTH)
    place = head[:, None] * WIDTH + column[None, :]
    valid = (head < heads)[:, None]
    d_normed = tl.load(grad + batch * grad_batch + token * grad_token + place, mask=valid, other=0.0).to(tl.float32)
    if ROTATES:  # back, by the opposite angle
        pair = tl.arange(0, WIDTH // 2)
        cos = tl.load(rope + token * WIDTH + 2 * pair)[None, :]
        sin = tl.load(rope + token * WIDTH + 2 * pair + 1)[None, :]
        a, b = tl.split(tl.reshape(d_normed, (HEADS, WIDTH // 2, 2)))
        d_normed = tl.reshape(tl.join(a * cos + b * sin, b * cos - a * sin), (HEADS, WIDTH))
    d_normed = d_normed * tl.load(weight + column).to(tl.float32)[None, :]
    values = tl.load(x + batch * x_batch + token * x_token + place, mask=valid, other=0.0).to(tl.float32)
    first = (batch * tokens + token) * heads
    inverse = tl.load(scale + first + head, mask=head < heads, other=0.0)
    mean = tl.sum(d_normed * values, 1) / WIDTH
    found = d_normed * inverse[:, None] - values * (mean * inverse * inverse * inverse)[:, None]
    tl.store(d_x + first * WIDTH + place, found.to(d_x.dtype.element_ty), mask=valid)


@triton.jit
def _gated_sum_backward(
    grad,
    gate,
    y,
    d_y,
    sums,
    tokens,
    width,
    parts,
    grad_batch,
    grad_token,
    gate_batch,
    y_batch,
    y_token,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Some columns of one part of the tokens: d_y = grad * gate, and the part's sum of grad * y."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    part, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    valid = column < width
    factor = tl.load(gate + batch * gate_batch + column, mask=valid, other=0.0).to(tl.float32)[None, :]
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    each = tl.cdiv(tokens, parts)
    stop = tl.minimum((part + 1) * each, tokens)
    for first in range(part * each, stop, ROWS):  # several rows at once, so that enough reading is under way
        token = first + tl.arange(0, ROWS)
        inside = (token < stop)[:, None] & valid[None, :]
        at = token.to(tl.int64)[:, None]
        upstream = tl.load(grad + batch * grad_batch + at * grad_token + column[None, :], mask=inside, other=0.0)
        value = tl.load(y + batch * y_batch + at * y_token + column[None, :], mask=inside, other=0.0)
        upstream = upstream.to(tl.float32)
        total += upstream * value.to(tl.float32)
        found = (upstream * factor).to(d_y.dtype.element_ty)
        tl.store(d_y + (batch * tokens + at) * width + column[None, :], found, mask=inside)
    tl.store(sums + (batch * parts + part) * width + column, tl.sum(total, 0), mask=valid)


@triton.jit
def _low_rank(
    hidden,
    up,
    token,
    column,
    tokens,
    width,
    rank,
    hidden_row,
    RANK: tl.constexpr,
):
    """A tile of hidden @ up^T, summed in fp32."""
    inner = tl.arange(0, RANK)
    left = tl.load(
        hidden + token.to(tl.int64)[:, None] * hidden_row + inner[None, :],
        mask=(token < tokens)[:, None] & (inner < rank)[None, :],
        other=0.0,
    )
    right = tl.load(
        up + column[None, :] * rank + inner[:, None],
        mask=(column < width)[None, :] & (inner < rank)[:, None],
        other=0.0,
    )
    return tl.dot(left, right, input_precision="ieee")


@triton.jit
def _sigmoid_of_gelu(v):
    """GELU in its tanh form is v * this."""
    return tl.sigmoid(1.5957691216057308 * (v + 0.044715 * v * v * v))


@triton.jit
def _gelu(
    x,
    out,
    hidden,
    up,
    tokens,
    width,
    rank,
    hidden_row,
    factor,
    TOKENS: tl.constexpr,
    COLUMNS: tl.constexpr,
    RANK: tl.constexpr,
):
    """A tile of out = GELU(x + factor * hidden @ up^T), [tokens, width]; out may be x."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    token = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    place = token.to(tl.int64)[:, None] * width + column[None, :]
    valid = (token < tokens)[:, None] & (column < width)[None, :]
    v = tl.load(x + place, mask=valid, other=0.0).to(tl.float32)
    v += factor * _low_rank(hidden, up, token, column, tokens, width, rank, hidden_row, RANK)
    tl.store(out + place, (v * _sigmoid_of_gelu(v)).to(out.dtype.element_ty), mask=valid)


@triton.jit
def _gelu_backward(
    grad,
    x,
    d_x,
    hidden,
    up,
    tokens,
    width,
    rank,
    hidden_row,
    factor,
    TOKENS: tl.constexpr,
    COLUMNS: tl.constexpr,
    RANK: tl.constexpr,
):
    """A tile of d_x = grad * GELU'(x + factor * hidden @ up^T)."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    token = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    place = token.to(tl.int64)[:, None] * width + column[None, :]
    valid = (token < tokens)[:, None] & (column < width)[None, :]
    v = tl.load(x + place, mask=valid, other=0.0).to(tl.float32)
    v += factor * _low_rank(hidden, up, token, column, tokens, width, rank, hidden_row, RANK)
    s = _sigmoid_of_gelu(v)
    slope = s + v * s * (1 - s) * 1.5957691216057308 * (1 + 0.134145 * v * v)
    found = tl.load(grad + place, mask=valid, other=0.0).to(tl.float32) * slope
    tl.store(d_x + place, found.to(d_x.dtype.element_ty), mask=valid)


@triton.jit
def _gated_low_rank(
    x,
    gate,
    y,
    hidden,
    up,
    out,
    tokens,
    width,
    rank,
    hidden_row,
    factor,
    x_batch,
    x_token,
    gate_batch,
    out_batch,
    out_token,
    TOKENS: tl.constexpr,
    COLUMNS: tl.constexpr,
    RANK: tl.constexpr,
):
    """A tile of out = x + gate * (y + factor * hidden @ up^T); y and hidden have the rows of all samples."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    token = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    batch = tl.program_id(2).to(tl.int64)
    valid = (token < tokens)[:, None] & (column < width)[None, :]
    at = token.to(tl.int64)[:, None]
    value = tl.load(y + (batch * tokens + at) * width + column[None, :], mask=valid, other=0.0).to(tl.float32)
    mine = hidden + batch * tokens * hidden_row
    value += factor * _low_rank(mine, up, token, column, tokens, width, rank, hidden_row, RANK)
    strength = tl.load(gate + batch * gate_batch + column, mask=column < width, other=0.0).to(tl.float32)[None, :]
    before = tl.load(x + batch * x_batch + at * x_token + column[None, :], mask=valid, other=0.0).to(tl.float32)
    found = (before + strength * value).to(out.dtype.element_ty)
    tl.store(out + batch * out_batch + at * out_token + column[None, :], found, mask=valid)


def head_norm(x: Tensor, weight: Tensor, rope: Tensor | None, out: Tensor) -> Tensor:
    """See `pass_kernels.head_norm`; `rope` is [N, 1, D/2, 2]: cosines and sines."""
    batch, tokens, heads, width = x.shape
    x = _packed(x)
    scale = torch.empty(batch, tokens, heads, 1, dtype=torch.float32, device=x.device)
    with torch.cuda.device_of(x):
        _head_norm[(tokens, batch)](
            *(x, weight, x if rope is None else rope, out, scale, tokens, heads),
            *(x.stride(0), x.stride(1), out.stride(0), out.stride(1), EPS),
            ROTATES=rope is not None,
            HEADS=triton.next_power_of_2(heads),
            WIDTH=width,
        )
    return scale


def head_norm_backward(grad: Tensor, x: Tensor, scale: Tensor, weight: Tensor, rope: Tensor | None) -> Tensor:
    """See `pass_kernels.head_norm_backward`; `rope` is [N, 1, D/2, 2]: cosines and sines."""
    batch, tokens, heads, width = x.shape
    grad, x = _packed(grad), _packed(x)
    d_x = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    with torch.cuda.device_of(x):
        _head_norm_backward[(tokens, batch)](
            *(grad, x, scale, weight, x if rope is None else rope, d_x, tokens, heads),
            *(grad.stride(0), grad.stride(1), x.stride(0), x.stride(1)),
            ROTATES=rope is not None,
            HEADS=triton.next_power_of_2(heads),
            WIDTH=width,
        )
    return d_x


def gated_sum_backward(grad: Tensor, gate: Tensor, y: Tensor, parts: int) -> tuple[Tensor, Tensor]:
    """Return the gradient of y [B, N, hidden], and the sums of grad * y over parts of the tokens [B, parts, hidden]."""
    batch, tokens, width = y.shape
    grad, y, gate = _rows_packed(grad), _rows_packed(y), _rows_packed(gate)
    d_y = torch.empty(y.shape, dtype=y.dtype, device=y.device)
    sums = torch.empty(batch, parts, width, dtype=torch.float32, device=y.device)
    with torch.cuda.device_of(y):
        _gated_sum_backward[(triton.cdiv(width, SUMMED[1]), parts, batch)](
            *(grad, gate, y, d_y, sums, tokens, width, parts),
            *(grad.stride(0), grad.stride(1), gate.stride(0), y.stride(0), y.stride(1)),
            ROWS=SUMMED[0],
            COLUMNS=SUMMED[1],
        )
    return d_y, sums


def gelu_low_rank(x: Tensor, hidden: Tensor, up: Tensor, factor: float, out: Tensor) -> None:
    """See `pass_kernels.gelu_low_rank`; x and out [n, width] are contiguous."""
    tokens, width = x.shape
    with torch.cuda.device_of(x):
        _gelu[_tiles(tokens, width)](
            *(x, out, hidden, up.contiguous(), tokens, width, up.shape[1], hidden.stride(0), factor),
            TOKENS=TOKENS,
            COLUMNS=COLUMNS,
            RANK=_padded(up.shape[1]),
        )


def gelu_low_rank_backward(grad: Tensor, x: Tensor, hidden: Tensor, up: Tensor, factor: float) -> Tensor:
    """See `pass_kernels.gelu_low_rank_backward`; x [n, width] is contiguous."""
    tokens, width = x.shape
    d_x = torch.empty_like(x)
    with torch.cuda.device_of(x):
        _gelu_backward[_tiles(tokens, width)](
            *(grad.contiguous(), x, d_x, hidden, up.contiguous(), tokens, width, up.shape[1], hidden.stride(0), factor),
            TOKENS=TOKENS,
            COLUMNS=COLUMNS,
            RANK=_padded(up.shape[1]),
        )
    return d_x


def gated_low_rank(x: Tensor, gate: Tensor, y: Tensor, hidden: Tensor, up: Tensor, factor: float, out: Tensor) -> None:
    """See `pass_kernels.gated_low_rank`; y [B * N, width] is contiguous."""
    batch, tokens, width = x.shape
    x, gate = _rows_packed(x), _rows_packed(gate)
    with torch.cuda.device_of(x):
        _gated_low_rank[(*_tiles(tokens, width), batch)](
            *(x, gate, y, hidden, up.contiguous(), out, tokens, width, up.shape[1], hidden.stride(0), factor),
            *(x.stride(0), x.stride(1), gate.stride(0), out.stride(0), out.stride(1)),
            TOKENS=TOKENS,
            COLUMNS=COLUMNS,
            RANK=_padded(up.shape[1]),
        )


def _packed(x: Tensor) -> Tensor:
    """Return x [B, N, H, D] with the heads of a token one behind the other."""
    return x if x.stride(3) == 1 and x.stride(2) == x.shape[3] else x.contiguous()


def _rows_packed(x: Tensor) -> Tensor:
    """Return x [B, N, hidden] with contiguous rows."""
    return x if x.stride(2) == 1 else x.contiguous()


def _tiles(tokens: int, width: int) -> tuple[int, int]:
    return triton.cdiv(width, COLUMNS), triton.cdiv(tokens, TOKENS)


def _padded(rank: int) -> int:
    power: int = triton.next_power_of_2(rank)
    return max(16, power)  # the smallest product of tensor cores


def try_out(device: torch.device) -> None:
    """Make a kernel and start it, on a GPU.

    Raises:
        Exception: of any kind: Triton's compiler, the C compiler that it calls, or the driver failed.
    """
    x = torch.zeros(1, 1, 1, 16, device=device)
    head_norm(x, x.new_ones(16), None, torch.empty_like(x))
