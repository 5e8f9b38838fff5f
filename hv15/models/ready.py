"""Makes the transformer ready to run as the settings ask: loads and quantises it, sets its kernels and memory options.

    dit = load_ready(path, settings.train, device=device, dtype=dtype)

Everything that changes numbers (dtype, quantisation, merged LoRAs) is in `load_with_settings`; `set_up` affects only
memory and speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from hv15.choices import TransformerSection
from hv15.config.sample import SampleSettings
from hv15.config.train import TrainSettings
from hv15.config.transformer import TransformerSettings
from hv15.errors import UserError
from hv15.models import pass_kernels
from hv15.models.attention import pick_attention, pick_block_attention
from hv15.models.context_parallel import join
from hv15.models.dit import DiT
from hv15.models.dit_config import DiTConfig
from hv15.models.dit_files import load_dit
from hv15.models.sharded_blocks import shard_blocks
from hv15.models.weights.block_hooks import BlockHook
from hv15.models.weights.offload import ActivationOffload
from hv15.models.weights.patches import Patch
from hv15.models.weights.quantised import check_weight_format
from hv15.models.weights.swap import SLOTS, BlockSwap

MOST_BLOCKS = 1 << 16
"""More than any transformer has."""


def load_ready(
    path: Path | str,
    settings: TransformerSettings,
    *,
    device: torch.device | str,
    dtype: torch.dtype | None,
    merge: Sequence[Patch] = (),
    config: DiTConfig | None = None,
    super_resolution: bool = False,
) -> DiT:
    """Load the transformer and set it up as the settings ask, for training if they are those of `train:`.

    Args:
        settings: the section `train:` or `sample:`.
        merge, config, super_resolution: see `load_dit`.

    Raises:
        UserError: the file cannot be loaded, or this machine cannot do what the settings ask.
    """
    dit = load_with_settings(
        path, settings, device=device, dtype=dtype, merge=merge, config=config, super_resolution=super_resolution
    )
    set_up(dit, settings, device)
    return dit


def load_with_settings(
    path: Path | str,
    settings: TransformerSettings,
    *,
    device: torch.device | str,
    dtype: torch.dtype | None,
    merge: Sequence[Patch] = (),
    config: DiTConfig | None = None,
    super_resolution: bool = False,
) -> DiT:
    """Load the transformer in the number formats that the settings ask for; `set_up` does the rest.

    Blocks that will be swapped or divided among GPUs stay in CPU memory.

    Raises:
        UserError: the file cannot be loaded, or this machine cannot do what the settings ask, which is said first.
    """
    if dtype is not None:
        check_kernels(settings, device, dtype)
    return load_dit(
        path,
        config=config,
        dtype=dtype,
        device=device,
        quantize=None if settings.quantize == "none" else settings.quantize,
        merge=merge,
        host_blocks=_host_blocks(settings),
        super_resolution=super_resolution,
    )


def check_kernels(settings: TransformerSettings, device: torch.device | str, dtype: torch.dtype) -> None:
    """Check that a device can compute as the settings ask, which takes no model.

    Raises:
        UserError: a package is missing, or it cannot.
    """
    training = isinstance(settings, TrainSettings)
    pick_attention(settings.attn_mode, split=False, device=device, dtype=dtype, training=training)
    if isinstance(settings, SampleSettings) and settings.sage_blocks is not None:
        pick_attention("sage", split=False, device=device, dtype=dtype, training=False, setting="sage_blocks")
    if settings.quantize != "none":
        check_weight_format(settings.quantize, device)
    if settings.compile:
        _check_backend(settings.compile_backend, "train" if training else "sample")


def _host_blocks(settings: TransformerSettings) -> int:
    """How many blocks are loaded into CPU memory."""
    if isinstance(settings, TrainSettings) and settings.shard_base:
        return MOST_BLOCKS
    return settings.blocks_to_swap + SLOTS if settings.blocks_to_swap else 0


def set_up(dit: DiT, settings: TransformerSettings, device: torch.device | str) -> None:
    """Apply the settings for attention, division among GPUs, block swap, checkpointing and compilation.

    Raises:
        UserError: too many blocks to swap, an attention kernel is not available here or asked for in blocks that there
            are not, the heads or the processes cannot be divided for context parallelism, or torch does not know the
            backend that is to compile.
        ValueError: it is already set up.
    """
    if dit.block_hooks:
        raise ValueError("the transformer is already set up: reset it first")
    training = isinstance(settings, TrainSettings)
    dit.attention = pick_attention(
        settings.attn_mode, split=settings.split_attn, device=device, dtype=dit.dtype, training=training
    )
    if isinstance(settings, SampleSettings):
        dit.block_attention = pick_block_attention(
            settings.sage_blocks,
            dit.config.num_blocks,
            split=settings.split_attn,
            device=device,
            dtype=dit.dtype,
        )
    section: TransformerSection = "train" if training else "sample"
    dit.context_parallel = join(settings.context_parallel, dit.config.num_heads, device, section)
    pass_kernels.ENABLED = settings.fused_kernels
    hooks: list[BlockHook] = []
    if settings.blocks_to_swap:
        hooks.append(BlockSwap(dit.double_blocks, settings.blocks_to_swap, device))
    if isinstance(settings, TrainSettings):
        if settings.shard_base:
            shard_blocks(dit, device)
        dit.gradient_checkpointing = settings.gradient_checkpointing
        if settings.gradient_checkpointing_cpu_offload:
            hooks.append(ActivationOffload(device))
    dit.block_hooks = tuple(hooks)
    if settings.compile:
        _check_backend(settings.compile_backend, section)
        dit.compile_blocks(
            settings.compile_mode,
            settings.compile_dynamic,
            settings.compile_backend,
            fullgraph=settings.compile_fullgraph,
        )


def _check_backend(name: str, section: TransformerSection) -> None:
    """Check that torch knows what is to compile.

    Raises:
        UserError: it does not.
    """
    known = torch._dynamo.list_backends(exclude_tags=None)
    if name not in known:
        raise UserError(
            f"{section}.compile_backend: torch knows no '{name}' here, but {', '.join(known)}",
            hint="use inductor, which is torch's own",
        )


def reset(dit: DiT) -> None:
    """Undo `set_up` and remove all hooks; blocks that are in CPU memory or divided among GPUs stay so."""
    for hook in dit.block_hooks:
        hook.remove()
    for name in ("attention", "block_attention", "context_parallel", "gradient_checkpointing", "block_hooks"):
        dit.__dict__.pop(name, None)
    dit.uncompile_blocks()
    pass_kernels.ENABLED = True
