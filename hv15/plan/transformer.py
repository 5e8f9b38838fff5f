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

from hv15.choices import StepCacheRule
from hv15.config import Settings
from hv15.config.train import TrainSettings
from hv15.config.transformer import TransformerSettings
from hv15.lora.outline import read_outline
from hv15.lora.sizes import NetworkSizes, settings_network
from hv15.memory import WEIGHTS
from hv15.models import DiTConfig
from hv15.models.step_cache import kept_tokens
from hv15.models.vision import VisionConfig
from hv15.models.weights.swap import SLOTS, BlockSwap, swapped_indices
from hv15.plan.cost import Cost
from hv15.plan.meter import Meter
from hv15.plan.metered_steps import AVERAGE, LORA, PassSize, make_dit, micro_batches, run_denoising, run_training
from hv15.plan.stretches import GRADIENTS, OPTIMIZER, cost_with_blocks
from hv15.plan.work import scaled_work

BASE_LORAS = "base LoRAs"
STEP_CACHE = "earlier steps"
"""What a sample keeps for steps that reuse it (`sample.step_cache`)."""
STAGED = 2
"""Copies of the LoRA, fp32, that the machine's memory holds for a moving average: the average, and the last step's."""
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
    validation: PassSize | None = None,
    gpu: bool = True,
    known: Known | None = None,
) -> Cost:
    """Return what an optimizer step takes when the optimizer has its state.

    Args:
        settings: of `train:`, with the LoRA, the optimizer and the options of memory.
        size: of the largest batch.
        validation: of the largest clip that is measured between steps.
        gpu: plan for a GPU: its optimizers update all weights at once, and kernels have workspaces.
        known: is used, and filled.
    """
    options = settings.train
    resident = settings.model_copy(update={"train": options.model_copy(update={"blocks_to_swap": 0})})
    network = settings_network(config, settings)

    def run(blocks: int) -> Meter:
        fewer = replace(config, num_blocks=blocks)
        sizes = network.alike(blocks)
        return run_training(resident, fewer, dtype, size, network=sizes, validation=validation, gpu=gpu)

    # Forward and backward, where at each turn the last blocks are still there; and without the LoRA.
    copies = (2 + size.prior_share) * options.blocks_to_swap
    asked = ("train", resident.model_dump_json(), config, dtype, size, validation, gpu)
    cost = _with_lora(_resident(known, asked, run, config.num_blocks), network, config)
    cost = _with_swap(cost, options, config, dtype, copies)
    if options.shard_base:
        cost = _with_shards(cost, options, config, dtype)
    cost = _with_base_weights(cost, settings, dtype)
    cost = replace(cost, work=scaled_work(cost.work, 1 / micro_batches(options)))
    if options.gradient_checkpointing_cpu_offload:
        tokens = -(-prod(size.latent) // options.context_parallel)
        kept = config.num_blocks * size.samples * tokens * config.hidden_size * dtype.itemsize
        cost = replace(cost, host=cost.host + kept, copied=cost.copied + 2 * kept)  # there and back
    if gpu and options.ema_decay and options.ema_device == "cpu":
        cost = replace(cost, host=cost.host + STAGED * 4 * network.parameters)
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
    network = settings_network(config, settings) if with_lora else None

    def run(blocks: int) -> Meter:
        return run_denoising(
            resident,
            replace(config, num_blocks=blocks),
            dtype,
            size,
            guided=guided,
            batch_cfg=batch_cfg,
            with_lora=with_lora,
            network=network and network.alike(blocks),
            gpu=gpu,
        )

    asked = ("sample", resident.model_dump_json(), config, dtype, size, guided, batch_cfg, with_lora, gpu)
    cost = _resident(known, asked, run, config.num_blocks)
    copies = (2 if guided and not batch_cfg else 1) * _swapped(settings.sample, config)
    cost = _with_swap(_with_lora(cost, network, config) if network else cost, settings.sample, config, dtype, copies)
    if settings.sample.step_cache.rule != "none":
        branches = 2 if guided else 1
        cost = _with_step_cache(cost, settings.sample.step_cache.rule, config, dtype, size, branches)
    return replace(cost, host=cost.host * settings.sample.context_parallel)


def _with_step_cache(
    cost: Cost, rule: StepCacheRule, config: DiTConfig, dtype: torch.dtype, size: PassSize, branches: int
) -> Cost:
    """The cost with what stays of earlier steps; each branch of guidance keeps its own."""
    condition = size.text_tokens + (VisionConfig().num_tokens if size.i2v else 0)
    tokens = kept_tokens(rule, prod(size.latent), condition)
    kept = branches * tokens * config.hidden_size * dtype.itemsize
    return replace(cost, parts={**cost.parts, STEP_CACHE: kept})


def _resident(known: Known | None, asked: Hashable, run: Callable[[int], Meter], blocks: int) -> Cost:
    """What a step takes if no block is swapped."""
    known = {} if known is None else known
    if asked not in known:
        known[asked] = cost_with_blocks(run, blocks)
    return known[asked]


def _with_lora(cost: Cost, network: NetworkSizes, config: DiTConfig) -> Cost:
    """The cost with a LoRA that is not the same in all blocks: the blocks that were run have the largest of each layer.

    What it keeps is exact; what the blocks take while they compute is as if each had the largest.
    """
    share = network.parameters / network.alike(config.num_blocks).parameters
    if share == 1:
        return cost
    of_lora = {
        part: round(cost.parts[part] * share) for part in (LORA, AVERAGE, GRADIENTS, OPTIMIZER) if part in cost.parts
    }
    return replace(cost, parts={**cost.parts, **of_lora})


def _with_base_weights(cost: Cost, settings: Settings, dtype: torch.dtype) -> Cost:
    """The cost with the tensors of `base_weights`, but without their products."""
    size = 0
    for lora in settings.train.base_weights:
        for module in read_outline(settings.resolve(lora.path)):
            for part, shape in module.shapes.items():
                if part != "alpha":
                    size += prod(shape) * (dtype.itemsize if part.startswith(("lora_", "diff")) else 4)
    return replace(cost, parts={**cost.parts, BASE_LORAS: size}) if size else cost


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


def _with_swap(cost: Cost, settings: TransformerSettings, config: DiTConfig, dtype: torch.dtype, copies: float) -> Cost:
    """The cost with block swap: waiting blocks take none of the device's memory, apart from two slots for their visits.

    Args:
        copies: how often a block is copied to the device, in the mean.

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
    return replace(cost, parts=parts, host=cost.host + waiting * slot, copied=round(copies * slot))
