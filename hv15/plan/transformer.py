"""Memory and arithmetic of a training step and of a sampling step: both are run, with few blocks and without data.

With context parallelism, the first rank's share is run. The time for the exchange between the GPUs is not counted. A
cost is that of one GPU, but of the machine's memory, which holds what all of its GPUs wait for, it is all.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from itertools import chain
from math import prod
from typing import TypeAlias

import torch
from torch.nn import Module, ModuleList

from hv15.config import Settings
from hv15.config.train import TrainSettings
from hv15.config.transformer import TransformerSettings
from hv15.memory import WEIGHTS
from hv15.models import DiTConfig
from hv15.models.weights.swap import SLOTS, BlockSwap, swapped_indices
from hv15.plan.cost import Cost
from hv15.plan.meter import Meter
from hv15.plan.metered_steps import PassSize, make_dit, micro_batches, run_denoising, run_training
from hv15.plan.stretches import cost_with_blocks
from hv15.plan.work import scaled_work

GATHERED = 2
"""Blocks that are whole on a GPU at the same time if they are divided among GPUs."""


Known: TypeAlias = dict[Hashable, Cost]
"""What steps take without block swap, for those who ask again with other numbers of swapped blocks."""


def training(
    settings: Settings,
    config: DiTConfig,
    dtype: torch.dtype,
    size: PassSize,
    *,
    gpu: bool = True,
    known: Known | None = None,
) -> Cost:
    """Return what an optimizer step takes when the optimizer has its state.

    Args:
        settings: of `train:`, with the LoRA, the optimizer and the options of memory.
        size: of the largest batch.
        gpu: plan for a GPU: its optimizers update all weights at once, and kernels have workspaces.
        known: is used, and filled.
    """
    options = settings.train
    resident = settings.model_copy(update={"train": options.model_copy(update={"blocks_to_swap": 0})})

    def run(blocks: int) -> Meter:
        return run_training(resident, replace(config, num_blocks=blocks), dtype, size, gpu=gpu)

    copies = 2 * options.blocks_to_swap  # forward and backward; at each turn, the last blocks are still there
    asked = (resident.train.model_dump_json(), config, dtype, size, gpu)
    cost = _with_swap(_resident(known, asked, run, config.num_blocks), options, config, dtype, copies)
    if options.shard_base:
        cost = _with_shards(cost, options, config, dtype)
    cost = replace(cost, work=scaled_work(cost.work, 1 / micro_batches(options)))
    if options.gradient_checkpointing_cpu_offload:
        tokens = -(-prod(size.latent) // options.context_parallel)
        kept = config.num_blocks * size.samples * tokens * config.hidden_size * dtype.itemsize
        cost = replace(cost, host=cost.host + kept, copied=cost.copied + 2 * kept)  # there and back
    return replace(cost, host=cost.host * options.gpus_per_machine)


def denoising(
    settings: Settings,
    config: DiTConfig,
    dtype: torch.dtype,
    size: PassSize,
    *,
    guided: bool,
    batch_cfg: bool = False,
    with_lora: bool = True,
    gpu: bool = True,
    known: Known | None = None,
) -> Cost:
    """Return what a step of sampling takes.

    Args:
        settings: of `sample:`.
        size: of the video; `samples` is 1.
        guided, batch_cfg, with_lora: see `run_denoising`.
        gpu, known: see `training`.
    """
    resident = settings.model_copy(update={"sample": settings.sample.model_copy(update={"blocks_to_swap": 0})})

    def run(blocks: int) -> Meter:
        return run_denoising(
            resident,
            replace(config, num_blocks=blocks),
            dtype,
            size,
            guided=guided,
            batch_cfg=batch_cfg,
            with_lora=with_lora,
            gpu=gpu,
        )

    copies = (2 if guided and not batch_cfg else 1) * _swapped(settings.sample, config)
    asked = (resident.sample.model_dump_json(), config, dtype, size, guided, batch_cfg, with_lora, gpu)
    cost = _with_swap(_resident(known, asked, run, config.num_blocks), settings.sample, config, dtype, copies)
    return replace(cost, host=cost.host * settings.sample.context_parallel)


def _resident(known: Known | None, asked: Hashable, run: Callable[[int], Meter], blocks: int) -> Cost:
    """What a step takes if no block is swapped."""
    known = {} if known is None else known
    if asked not in known:
        known[asked] = cost_with_blocks(run, blocks)
    return known[asked]


def _with_shards(cost: Cost, options: TrainSettings, config: DiTConfig, dtype: torch.dtype) -> Cost:
    """The cost with the blocks divided among the GPUs: a share of each, and the whole of the one that computes and of
    the next, which is gathered meanwhile."""
    block = _bytes(_some_blocks(options, config, dtype)[0])
    saved = config.num_blocks * (block - -(-block // options.gpus)) - GATHERED * block
    return replace(cost, parts={**cost.parts, WEIGHTS: cost.parts[WEIGHTS] - max(saved, 0)})


def _some_blocks(settings: TransformerSettings, config: DiTConfig, dtype: torch.dtype) -> ModuleList:
    """Return the first blocks of the transformer without data, enough for one to be swapped."""
    meter = Meter("meta")
    with meter:
        resident = settings.model_copy(update={"blocks_to_swap": 0})
        return make_dit(meter, replace(config, num_blocks=SLOTS + 1), resident, dtype, "meta").double_blocks


def _bytes(block: Module) -> int:
    return sum(tensor.nbytes for tensor in chain(block.parameters(), block.buffers()))


def _swapped(settings: TransformerSettings, config: DiTConfig) -> int:
    """How many blocks are copied to the device in a pass.

    Raises:
        UserError: more blocks are to be swapped than is possible.
    """
    return len(swapped_indices(config.num_blocks, settings.blocks_to_swap))


def _with_swap(cost: Cost, settings: TransformerSettings, config: DiTConfig, dtype: torch.dtype, copies: int) -> Cost:
    """The cost with block swap: waiting blocks take none of the device's memory, apart from two slots for their visits.

    Args:
        copies: how often a block is copied to the device.

    Raises:
        UserError: more blocks are to be swapped than is possible.
    """
    waiting = _swapped(settings, config)
    if not waiting:
        return cost
    blocks = _some_blocks(settings, config, dtype)
    block = _bytes(blocks[0])
    slot = BlockSwap(blocks, 1, "meta").slots[0].memory.nbytes
    saved = waiting * block - SLOTS * slot
    parts = {**cost.parts, WEIGHTS: cost.parts[WEIGHTS] - saved}
    return replace(cost, parts=parts, host=cost.host + waiting * slot, copied=copies * slot)
