"""Context parallelism: several GPUs compute one batch together, for videos that one cannot hold.

The scheme is that of Jacobs et al. 2023, "DeepSpeed Ulysses". Every rank has the whole model. Between two attentions it
has an equal share of each sample's image tokens and condition tokens; for attention the ranks exchange, so that each
gets all tokens of its share of the heads. So heads must be divisible by ranks; tokens need not be, because shares are
padded at the end, and the padding is cut off before attention.

- A token is computed on one rank only, so parameter gradients are summed over the ranks, as in data parallelism.
- The velocity is gathered at the end: all ranks of a group have the same one.
- Tensors without data are not sent. So the planner runs one rank's share by itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from hv15.choices import TransformerSection
from hv15.errors import UserError
from hv15.gpus import LOCAL_RANK
from hv15.models.attention import Attention
from hv15.models.weights.no_data import has_no_data


@dataclass(frozen=True)
class ContextParallel:
    """The ranks that compute one batch together."""

    size: int
    rank: int = 0
    """This process's number among them."""
    group: dist.ProcessGroup | None = None
    """None only in a plan, where nothing is sent."""

    def share(self, x: Tensor, dim: int) -> Tensor:
        """Return this rank's share of the tokens: [..., tokens, ...] -> [..., ceil(tokens / ranks), ...] along `dim`.

        The last shares are padded by zeros. The gradient reaches only this rank's tokens.
        """
        tokens = x.shape[dim]
        most = self._share_of(tokens)
        start = min(self.rank * most, tokens)
        own = x.narrow(dim, start, min(most, tokens - start))
        padding = most - own.shape[dim]
        return F.pad(own, [0, 0] * (x.ndim - 1 - dim % x.ndim) + [0, padding]) if padding else own

    def gather(self, x: Tensor, tokens: int) -> Tensor:
        """Undo `share`: [B, ceil(tokens / ranks), D] -> [B, tokens, D], the same on all ranks.

        All ranks must compute the same loss from it, because the backward pass takes this rank's part of the gradient.
        """
        return cast("Tensor", _Gather.apply(x, self, tokens))

    def least(self, value: int, device: torch.device) -> int:
        """Return the smallest of all ranks' values, so that all can decide by it; they must all call it.

        Args:
            device: this rank's, through whose memory the values are exchanged.
        """
        values = torch.tensor(value, dtype=torch.int64, device=device)
        dist.all_reduce(values, dist.ReduceOp.MIN, group=self.group)
        return int(values.item())

    def attention(self, kernel: Attention, image_tokens: int, text_tokens: int) -> Attention:
        """Return attention for blocks that have only a share of the tokens.

        Args:
            kernel: the attention of a share of the heads.
            image_tokens, text_tokens: in the whole batch, including the padding of shorter texts.
        """
        return _SharedAttention(
            kernel.kernel,
            kernel.packed,
            kernel.split,
            parallel=self,
            image_tokens=image_tokens,
            text_tokens=text_tokens,
        )

    def tokens_to_heads(self, x: Tensor, image_tokens: int, text_tokens: int) -> Tensor:
        """Exchange: all heads of a share of the tokens -> a share of the heads of all tokens.

        Args:
            x: [B, n + m, H, D]: this rank's image tokens, then its condition tokens.
            image_tokens, text_tokens: N and M of the whole batch.

        Returns:
            [B, N + M, H/ranks, D].
        """
        image = self._share_of(image_tokens)
        received = self._exchange(x.unflatten(2, (self.size, -1)).movedim(2, 0))  # (rank, B, n + m, H/ranks, D)
        parts = [
            *self._trimmed(received[:, :, :image], image_tokens),
            *self._trimmed(received[:, :, image:], text_tokens),
        ]
        return torch.cat(parts, 1)

    def heads_to_tokens(self, x: Tensor, image_tokens: int, text_tokens: int) -> Tensor:
        """Undo `tokens_to_heads`; shapes as there. Padding gets zeros."""
        shares = [self._share_of(image_tokens), self._share_of(text_tokens)]
        padding = [share * self.size - total for share, total in zip(shares, (image_tokens, text_tokens), strict=True)]
        image, text = x.split([image_tokens, text_tokens], 1)
        parts = [
            F.pad(each, (0, 0, 0, 0, 0, extra)).unflatten(1, (self.size, -1)).movedim(1, 0)
            for each, extra in zip((image, text), padding, strict=True)
        ]
        received = self._exchange(torch.cat(parts, 2))  # (rank, B, n + m, H/ranks, D)
        return received.movedim(0, 2).flatten(2, 3)

    def _share_of(self, tokens: int) -> int:
        return -(-tokens // self.size)

    def _trimmed(self, parts: Tensor, tokens: int) -> list[Tensor]:
        """Divide [ranks, B, n, ...] into [B, n or less, ...] each, so that their tokens are `tokens` in all."""
        share = parts.shape[2]
        return [part[:, : max(tokens - rank * share, 0)] for rank, part in enumerate(parts)]

    def _exchange(self, x: Tensor) -> Tensor:
        """Send x[r] to rank r, [ranks, ...]; return what the ranks sent here, in their order."""
        sent = x.contiguous()
        received = torch.empty_like(sent)
        if not has_no_data(x):
            dist.all_to_all_single(received, sent, group=self.group)
        return received


@dataclass(frozen=True)
class _SharedAttention(Attention):
    """Attention of a share of the heads, for and from the ranks' shares of the tokens."""

    parallel: ContextParallel = field(kw_only=True)
    image_tokens: int = field(kw_only=True)
    text_tokens: int = field(kw_only=True)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, lengths: list[int]) -> Tensor:
        """Attend; see `Attention`.

        Args:
            q, k, v: [B, n + m, H, D]: this rank's image tokens, then its condition tokens.
            lengths: n plus each sample's valid condition tokens on all ranks.

        Returns:
            [B, n + m, H * D].
        """
        others = self.image_tokens - -(-self.image_tokens // self.parallel.size)
        valid = [length + others for length in lengths]
        whole = [self._swap(each, to_heads=True) for each in (q, k, v)]  # (B, N + M, H/ranks, D)
        out = super().__call__(whole[0], whole[1], whole[2], valid)  # (B, N + M, H/ranks * D)
        return self._swap(out.unflatten(2, (-1, q.shape[3])), to_heads=False).flatten(2)

    def _swap(self, x: Tensor, *, to_heads: bool) -> Tensor:
        return cast("Tensor", _Swap.apply(x, self, to_heads))


class _SwapContext(FunctionCtx):
    attention: _SharedAttention
    to_heads: bool


class _Swap(torch.autograd.Function):
    """The two exchanges; each is the other's backward pass."""

    @staticmethod
    def forward(ctx: _SwapContext, x: Tensor, attention: _SharedAttention, to_heads: bool) -> Tensor:
        ctx.attention, ctx.to_heads = attention, to_heads
        parallel = attention.parallel
        swap = parallel.tokens_to_heads if to_heads else parallel.heads_to_tokens
        return swap(x, attention.image_tokens, attention.text_tokens)

    @staticmethod
    def backward(ctx: _SwapContext, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Swap.apply(grad, ctx.attention, not ctx.to_heads), None, None


class _GatherContext(FunctionCtx):
    parallel: ContextParallel


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _GatherContext, x: Tensor, parallel: ContextParallel, tokens: int) -> Tensor:
        ctx.parallel = parallel
        gathered = x.new_empty(parallel.size, *x.shape)
        if not has_no_data(x):
            dist.all_gather(list(gathered.unbind()), x.contiguous(), group=parallel.group)
        return gathered.movedim(0, 1).flatten(1, 2)[:, :tokens].contiguous()

    @staticmethod
    def backward(ctx: _GatherContext, grad: Tensor) -> tuple[Tensor, None, None]:
        return ctx.parallel.share(grad, 1), None, None


@contextmanager
def connected(size: int, device: torch.device) -> Iterator[torch.device]:
    """Connect the processes of a sample, which torch's variables name (WORLD_SIZE, RANK, ...), until the block ends.

    Does nothing if `size` is 1 or there are no such variables. A training's processes are connected by accelerate.

    Args:
        size: the setting `context_parallel`.
        device: the setting's; of several GPUs each process uses the one with its number.

    Yields:
        This process's device.
    """
    if size == 1 or "WORLD_SIZE" not in os.environ:
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get(LOCAL_RANK, "0")))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    yield device
    dist.destroy_process_group()  # not after an error: it could wait for the others


def join(size: int, heads: int, device: torch.device | str, section: TransformerSection) -> ContextParallel | None:
    """Return the group of `size` processes that this one belongs to: neighbours by their numbers; None if size is 1.

    All processes must call it.

    Args:
        size: the setting `context_parallel`.
        heads: of the transformer.
        device: of the transformer; on the meta device no other process is needed.
        section: of the setting.

    Raises:
        UserError: the heads or the processes cannot be divided into such groups.
    """
    if size == 1:
        return None
    check_heads(size, heads, section)
    if torch.device(device).type == "meta":
        return ContextParallel(size)
    processes = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    if processes % size or (section == "sample" and processes != size):
        raise UserError(
            f"{section}.context_parallel: {size} does not fit the number of processes, which is {processes}",
            hint=f"let hv15 start them, or start {size} (for training, also a multiple of it) with `accelerate launch`",
        )
    group, _ = dist.new_subgroups(size)
    return ContextParallel(size, dist.get_rank(group), group)


def check_heads(size: int, heads: int, section: TransformerSection) -> None:
    """Check that each of `size` ranks can have the same number of attention heads.

    Raises:
        UserError: it cannot.
    """
    if heads % size:
        possible = ", ".join(str(each) for each in range(2, heads + 1) if heads % each == 0)
        raise UserError(
            f"{section}.context_parallel: {size} does not divide the transformer's {heads} attention heads",
            hint=f"set {section}.context_parallel to 1 (off) or one of {possible}",
        )
