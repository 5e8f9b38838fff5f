"""The transformer's attention function, and the kernels that it can run on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from itertools import accumulate, groupby
from types import ModuleType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hv15.errors import UserError
from hv15.models.fused_attention import fused_attention
from hv15.models.weights.no_data import has_no_data

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""q, k, v [B, N, H, D] -> [B, N, H, D], without mask, scale 1/sqrt(D)."""

PackedKernel = Callable[[Tensor, Tensor, Tensor, Sequence[int]], Tensor]
"""The same for samples of any lengths, one behind the other: q, k, v [sum of lengths, H, D], lengths -> as q."""

_KEPT = 64  # batches whose boundaries are cached: all blocks of a pass use the same
HEAD_GROUPS = 4
"""The number of groups that `split` divides the heads into."""


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Torch's own attention: q, k, v [B, N, H, D] -> [B, N, H, D]."""
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2)


@dataclass(frozen=True)
class Attention:
    """Attention of every token to the valid tokens of its own sample."""

    kernel: Kernel = sdpa
    packed: PackedKernel | None = None
    """The kernel for a batch of unequal lengths in one call, if its package has one."""
    split: bool = False
    """Attend to one sample and one group of heads at a time, so that the kernel needs memory for one group only."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, lengths: list[int]) -> Tensor:
        """Attend. There is no mask: padding is not computed.

        Args:
            q, k, v: [B, N, H, D], of any strides that the kernel accepts; they are not copied for samples of one
                length.
            lengths: valid tokens of each sample (the rest, at the end, is padding), as host integers.

        Returns:
            [B, N, H * D]; zeros in padding.
        """
        tokens = q.shape[1]
        if min(lengths) == tokens and not (self.split and len(lengths) > 1):
            return self._attend(q, k, v).flatten(2)
        if self.packed is not None and not self.split and min(lengths) < max(lengths) and not has_no_data(q):
            joined = [torch.cat([each[i, :n] for i, n in enumerate(lengths)]) for each in (q, k, v)]
            samples = self.packed(joined[0], joined[1], joined[2], lengths).split(lengths)
        else:
            alike = _single(lengths) if self.split else _alike(lengths)
            groups = (self._attend(*(each[part, :n] for each in (q, k, v))) for part, n in alike)
            samples = tuple(sample for group in groups for sample in group)  # (n, H, D) each
        padding = q.new_zeros(tokens - min(lengths), *q.shape[2:])
        rows = [each for sample in samples for each in (sample, padding[: tokens - len(sample)])]
        return torch.cat(rows).view(len(lengths), tokens, -1)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if not self.split:
            return self._run(q, k, v)
        size = -(-q.shape[2] // HEAD_GROUPS)
        groups = zip(*(each.split(size, 2) for each in (q, k, v)), strict=True)
        if torch.is_grad_enabled():
            return torch.cat([self._run(*group) for group in groups], 2)
        out = torch.empty_like(q)
        for place, group in zip(out.split(size, 2), groups, strict=True):
            place.copy_(self._run(*group))
        return out

    def _run(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # Tensors without data only have their memory planned, and torch would plan its unfused path for them.
        return fused_attention(q, k, v)[0] if has_no_data(q) else self.kernel(q, k, v)


def _single(lengths: Sequence[int]) -> Iterator[tuple[slice, int]]:
    """Yield each sample of a batch, as a slice of it, and its length."""
    return ((slice(i, i + 1), length) for i, length in enumerate(lengths))


def _alike(lengths: Sequence[int]) -> Iterator[tuple[slice, int]]:
    """Yield neighbouring samples of equal length, as slices of the batch, and their length."""
    start = 0
    for length, group in groupby(lengths):
        stop = start + sum(1 for _ in group)
        yield slice(start, stop), length
        start = stop


ATTENTION = Attention()


def attend(q: Tensor, k: Tensor, v: Tensor, lengths: list[int]) -> Tensor:
    """Attention with torch's own kernel, for a few tokens: q, k, v [B, N, H, D] -> [B, N, H * D]; see `Attention`."""
    return ATTENTION(q, k, v, lengths)


class Package(NamedTuple):
    """The Python package of a kernel, and the GPUs and dtypes that it supports."""

    module: str
    install: str
    """How to install it."""
    wrap: Callable[[ModuleType], Kernel]
    """Makes the kernel from the imported module."""
    oldest: tuple[int, int]
    """The lowest CUDA compute capability that it supports."""
    half_only: bool = True
    """Supports only float16 and bfloat16."""
    newest: tuple[int, int] = (99, 0)
    """The highest CUDA compute capability that it supports."""
    wrap_packed: Callable[[ModuleType], PackedKernel] | None = None
    """Makes the kernel for packed samples; None: it has none (sage's is not in all of its versions)."""


def _flash(module: ModuleType) -> Kernel:
    def kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = module.flash_attn_func(q, k, v)
        return out[0] if isinstance(out, tuple) else out  # before 2025, flash3 also returned the logsumexp

    return kernel


def _flash_packed(module: ModuleType) -> PackedKernel:
    def kernel(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int]) -> Tensor:
        bounds, longest = boundaries(tuple(lengths), q.device), max(lengths)
        out = module.flash_attn_varlen_func(q, k, v, bounds, bounds, longest, longest)
        return out[0] if isinstance(out, tuple) else out

    return kernel


def _xformers(module: ModuleType) -> Kernel:
    return lambda q, k, v: module.memory_efficient_attention(q, k, v)


def _xformers_packed(module: ModuleType) -> PackedKernel:
    @lru_cache(_KEPT)
    def block_diagonal(lengths: tuple[int, ...], device: torch.device) -> object:
        return module.fmha.attn_bias.BlockDiagonalMask.from_seqlens(lengths, device=device)  # holds only boundaries

    def kernel(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int]) -> Tensor:
        bias = block_diagonal(tuple(lengths), q.device)
        out: Tensor = module.memory_efficient_attention(q[None], k[None], v[None], attn_bias=bias)
        return out[0]

    return kernel


def _sage(module: ModuleType) -> Kernel:
    return lambda q, k, v: module.sageattn(q, k, v, tensor_layout="NHD")


@lru_cache(_KEPT)
def boundaries(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """Return where packed samples begin and end, int32 [B + 1]: 0, n0, n0 + n1, ...

    It is made on the host and remembered for the other blocks, so nothing waits for the device.
    """
    bounds = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, pin_memory=device.type == "cuda")
    return bounds.to(device, non_blocking=True)


PACKAGES = {
    "flash": Package("flash_attn", "pip install 'hv15[flash]'", _flash, (8, 0), wrap_packed=_flash_packed),
    "flash3": Package(
        module="flash_attn_interface",
        install="the `hopper` folder of the flash-attention repository",
        wrap=_flash,
        oldest=(9, 0),
        newest=(9, 0),
        wrap_packed=_flash_packed,
    ),
    "xformers": Package(
        module="xformers.ops",
        install="pip install 'hv15[xformers]'",
        wrap=_xformers,
        oldest=(7, 0),
        half_only=False,
        wrap_packed=_xformers_packed,
    ),
    "sage": Package("sageattention", "pip install 'hv15[sage]'", _sage, (8, 0)),
}


def pick_attention(
    mode: str,
    *,
    split: bool,
    device: torch.device | str,
    dtype: torch.dtype,
    training: bool,
    setting: str = "attn_mode",
) -> Attention:
    """Return the attention that a setting asks for.

    Args:
        mode: a kernel's name, or auto: the first of flash3, flash and sdpa that is installed and that the GPU supports.
        split: see `Attention`.
        device: where it will run; the meta device, which planning uses, needs no package.
        dtype: of q, k and v.
        training: whether a backward pass is needed.
        setting: what asks for it, for messages.

    Raises:
        UserError: the kernel's package is missing, or the kernel does not support the device, the dtype or training.
    """
    device = torch.device(device)
    if mode == "auto":
        fits = (name for name in ("flash3", "flash") if _obstacle(name, device, dtype) is None)
        mode = next(fits, "sdpa")
    if training and mode == "sage":
        raise UserError(
            "train.attn_mode: sage computes in 8 bits and has no backward pass",
            hint="use auto, sdpa, flash, flash3 or xformers; sage is for sample.attn_mode",
        )
    if mode == "sdpa" or device.type == "meta":
        return Attention(split=split)
    if (obstacle := _obstacle(mode, device, dtype, setting)) is not None:
        raise obstacle
    return Attention(*load_kernels(mode, setting), split=split)


def pick_block_attention(
    blocks: tuple[int, int] | None, count: int, *, split: bool, device: torch.device | str, dtype: torch.dtype
) -> dict[int, Attention]:
    """Return, by block, the attention of those that do not use the transformer's: sage's, as `sample.sage_blocks` asks.

    Args:
        blocks: the first and the last of them, counted from 0; None: no block.
        count: of the transformer's blocks.
        split, dtype: see `pick_attention`.
        device: as there; on the meta device, where plans run fewer blocks, all kernels are the same, so there are none.

    Raises:
        UserError: the transformer has no such blocks, or sage cannot be used here.
    """
    if blocks is None or torch.device(device).type == "meta":
        return {}
    check_blocks(blocks, count)
    sage = pick_attention("sage", split=split, device=device, dtype=dtype, training=False, setting="sage_blocks")
    return dict.fromkeys(range(blocks[0], blocks[1] + 1), sage)


def check_blocks(blocks: tuple[int, int], count: int) -> None:
    """Check that a transformer of `count` blocks has those from the first to the last of a range.

    Raises:
        UserError: it has not.
    """
    if blocks[1] >= count:
        raise UserError(
            f"sample.sage_blocks: {list(blocks)}, but the transformer's blocks are 0 to {count - 1}",
            hint=f"end the range at {count - 1}, or remove sage_blocks",
        )


def load_kernels(mode: str, setting: str = "attn_mode") -> tuple[Kernel, PackedKernel | None]:
    """Import the package of a kernel; the second one is for packed samples, if there is one.

    Raises:
        UserError: the package is installed but cannot be imported.
    """
    package = PACKAGES[mode]
    try:
        module = import_module(package.module)
    except (ImportError, OSError) as error:  # OSError: a library of another CUDA version
        raise UserError(
            f"{setting}: {mode}: the package {package.module} cannot be imported: {error}",
            hint=f"reinstall it for this version of torch ({package.install}), or {_instead(setting)}",
        ) from error
    return package.wrap(module), package.wrap_packed(module) if package.wrap_packed is not None else None


def _obstacle(mode: str, device: torch.device, dtype: torch.dtype, setting: str = "attn_mode") -> UserError | None:
    """Return the reason why a kernel cannot be used here; None if it can."""
    package, other = PACKAGES[mode], _instead(setting)
    if device.type != "cuda":
        return UserError(f"{setting}: {mode} runs only on GPUs, not on {device.type}", hint=other)
    if not package.oldest <= torch.cuda.get_device_capability(device) <= package.newest:
        return UserError(f"{setting}: {mode} does not run on {torch.cuda.get_device_name(device)}", hint=other)
    if package.half_only and dtype not in (torch.float16, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        return UserError(
            f"{setting}: {mode} takes bfloat16 or float16, not {name}", hint=f"{other}, or dtype: bfloat16"
        )
    if find_spec(package.module.partition(".")[0]) is None:
        return UserError(
            f"{setting}: {mode} needs the package {package.module.partition('.')[0]}, which is not installed",
            hint=f"install it ({package.install}), or {other}",
        )
    return None


def _instead(setting: str) -> str:
    """What to do where the kernel that a setting names cannot be used."""
    return "use attn_mode: auto" if setting == "attn_mode" else f"remove {setting}"
