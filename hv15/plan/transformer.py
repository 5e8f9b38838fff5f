"""Memory and arithmetic of a training step and of a denoising step: both run here, on tensors without data.

Blocks are alike, so a model of 54 is not run as a whole: models of 3 and of 4 blocks are, and each stretch of the step
(block i on the way forward or back, the optimizer) is continued to the real number. Memory at a stretch is linear in
the number of blocks and in the block's place, so the largest value stands at the first two or the last two blocks: the
peak is that of the whole model, to the byte. Tests compare the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from hv15.cache.batches import BatchStream, TrainingItem
from hv15.config import Settings
from hv15.config.train import TrainSettings
from hv15.config.transformer import TransformerSettings
from hv15.lora import LoRANetwork
from hv15.lora.apply import apply_lora
from hv15.lora.names import kohya_name, select_modules
from hv15.memory import WEIGHTS
from hv15.models import Condition, DiT, DiTConfig
from hv15.models.dit_files import block_number, is_block_linear
from hv15.models.ready import set_up
from hv15.models.weights.quantised import QuantisedLinear, replace_linears
from hv15.models.weights.swap import SLOTS, swapped_indices
from hv15.plan.kernels import WithoutData
from hv15.plan.measured import Measured, line
from hv15.plan.meter import Meter
from hv15.sample.denoise import denoise
from hv15.train.examples import Example
from hv15.train.loop import LoopSettings, Trainer
from hv15.train.optimizers import make_optimizer
from hv15.train.run import make_network
from hv15.train.steps import StepPlan

LORA, GRADIENTS, OPTIMIZER = "LoRA", "gradients", "optimizer"
FEW = 3
"""Blocks of the smaller of the two models that are run: the first and the last are of a kind of their own."""
SMALL = (1, 4, 4)
"""Latent of the step that only gives the optimizer its state."""
VISION_TOKENS = 729


@dataclass(frozen=True)
class Work:
    """What one forward pass of the transformer sees."""

    samples: int
    latent: tuple[int, int, int]
    """Latent frames, height, width."""
    text_tokens: int
    i2v: bool


def training(settings: Settings, config: DiTConfig, dtype: torch.dtype, work: Work, *, gpu: bool = True) -> Measured:
    """What an optimizer step takes when the optimizer has its state.

    Args:
        settings: of `train:`; its LoRA, optimizer and ways with memory.
        work: the largest batch.
        gpu: plan for a GPU: its optimizers update all weights at once, and kernels have workspaces.
    """

    def run(blocks: int) -> Meter:
        return run_training(without_swap(settings, "train"), replace(config, num_blocks=blocks), dtype, work, gpu=gpu)

    measured = _with_swap(_continued(run, config.num_blocks), settings.train, config, dtype)
    measured = replace(measured, flops=measured.flops // min(settings.train.gradient_accumulation_steps, 2))
    if settings.train.gradient_checkpointing_cpu_offload:
        kept = config.num_blocks * work.samples * prod(work.latent) * config.hidden_size * dtype.itemsize
        measured = replace(measured, host=measured.host + kept, copied=measured.copied + kept)
    return measured


def denoising(
    settings: Settings,
    config: DiTConfig,
    dtype: torch.dtype,
    work: Work,
    *,
    guided: bool,
    batch_cfg: bool = False,
    with_lora: bool = True,
    gpu: bool = True,
) -> Measured:
    """What a step of sampling takes.

    Args:
        settings: of `sample:`.
        work: the video; `samples` is 1.
        guided, batch_cfg: see `hv15.sample.denoise.denoise`.
        with_lora: with the LoRA that `train:` trains.
    """

    def run(blocks: int) -> Meter:
        return run_denoising(
            without_swap(settings, "sample"),
            replace(config, num_blocks=blocks),
            dtype,
            work,
            guided=guided,
            batch_cfg=batch_cfg,
            with_lora=with_lora,
            gpu=gpu,
        )

    measured = _continued(run, config.num_blocks)
    return _with_swap(measured, settings.sample, config, dtype)


def run_training(
    settings: Settings,
    config: DiTConfig,
    dtype: torch.dtype,
    work: Work,
    *,
    device: str = "meta",
    gpu: bool = False,
) -> Meter:
    """Run two optimizer steps of the real trainer; the first one, a small one, gives the optimizer its state.

    Args:
        device: "meta", or "cpu" to do all of it and see what it really takes.
    """
    options = settings.train
    accumulation = min(options.gradient_accumulation_steps, 2)  # more change nothing
    meter = Meter(device, workspaces=gpu)
    with WithoutData(), meter:
        dit = make_dit(meter, config, options, dtype, device)
        with meter.making(LORA):
            network = make_network(_without_chance(settings), dit)
        meter.assign(LORA, network)
        place = _Place(meter, dit)
        arguments = dict(options.optimizer_args)
        if gpu and options.optimizer_type == "AdamW":
            arguments.setdefault("foreach", True)  # torch's own choice on a GPU
        groups = network.parameter_groups(options.learning_rate)
        optimizer = make_optimizer(options.optimizer_type, groups, arguments)
        place.watch_gradients(network)
        place.watch_optimizer(optimizer)
        item = TrainingItem("clip", "caption", work.latent, batch_size=work.samples)
        trainer = Trainer(
            settings=LoopSettings(seed=0, total_steps=2, max_grad_norm=options.max_grad_norm),
            dit=dit,
            network=network,
            optimizer=optimizer,
            reader=None,  # type: ignore[arg-type]
            plan=StepPlan(BatchStream([item] * work.samples, 0), accumulation),
            accelerator=SimpleNamespace(device=torch.device(device), num_processes=1),
            folder=Path(),
            spec="",
            save_lora=lambda path, step: None,
        )
        trainer.compute(0, _examples(config, replace(work, latent=SMALL)))
        meter.flops.clear()
        trainer.compute(1, _examples(config, work))
    return meter


def run_denoising(
    settings: Settings,
    config: DiTConfig,
    dtype: torch.dtype,
    work: Work,
    *,
    guided: bool,
    batch_cfg: bool = False,
    with_lora: bool = True,
    device: str = "meta",
    gpu: bool = False,
) -> Meter:
    """Run one step of the real denoising loop."""
    meter = Meter(device, workspaces=gpu)
    with WithoutData(), meter:
        dit = make_dit(meter, config, settings.sample, dtype, device)
        if with_lora:
            with meter.making(LORA):
                apply_lora(dit, _lora_tensors(dit, settings.train, dtype, device))
        _Place(meter, dit)
        cond = _condition(config, work).to(device)
        size = (work.samples, config.latent_channels, *work.latent)
        noise = torch.zeros(size).to(device)
        first = torch.zeros(*size[:2], 1, *size[3:]).to(device) if work.i2v else None
        sigmas = torch.tensor([1.0, 0.0])
        denoise(dit, noise, cond, cond if guided else None, sigmas, 6.0 if guided else 1.0, first, batch_cfg=batch_cfg)
    return meter


def make_dit(meter: Meter, config: DiTConfig, settings: TransformerSettings, dtype: torch.dtype, device: str) -> DiT:
    """The transformer as `load_ready` would give it, without a file; its weights count as such."""
    with meter.making(WEIGHTS):
        with torch.device(device):
            dit = DiT(config).to(dtype).requires_grad_(False).eval()
        if settings.quantize != "none":
            replace_linears(dit, settings.quantize, is_block_linear)
        if device != "meta":
            for layer in dit.modules():
                if isinstance(layer, QuantisedLinear):
                    layer.quantise_(torch.zeros(layer.out_features, layer.in_features))
                    if layer.bias is not None:
                        layer.bias.zero_()
        set_up(dit, settings, device)
    meter.assign(WEIGHTS, dit)
    return dit


def without_swap(settings: Settings, section: str) -> Settings:
    """The settings with every block on the device."""
    return _changed(settings, section, blocks_to_swap=0)


def _without_chance(settings: Settings) -> Settings:
    """Without dropout, whose masks are small and need a device's own random numbers, and from new weights."""
    none = {"network_dropout": 0.0, "rank_dropout": 0.0, "module_dropout": 0.0, "network_weights": None}
    return _changed(settings, "train", **none)


def _changed(settings: Settings, section: str, **values: Any) -> Settings:
    return settings.model_copy(update={section: getattr(settings, section).model_copy(update=values)})


def _with_swap(measured: Measured, settings: TransformerSettings, config: DiTConfig, dtype: torch.dtype) -> Measured:
    """Blocks that wait take none of the device's memory, but for the two slots in which they visit."""
    count = settings.blocks_to_swap
    if not count:
        return measured
    tiny = Meter("meta")
    with tiny:
        few = replace(config, num_blocks=SLOTS + 1)
        swapped = make_dit(tiny, few, settings.model_copy(update={"blocks_to_swap": 1}), dtype, "meta")
        plain = make_dit(tiny, few, settings.model_copy(update={"blocks_to_swap": 0}), dtype, "meta")
    assert swapped.swap is not None
    slot = swapped.swap.slots[0].memory.nbytes
    block = sum(
        tensor.nbytes
        for tensor in chain(*(m() for m in (plain.double_blocks[0].parameters, plain.double_blocks[0].buffers)))
    )
    swapped_indices(config.num_blocks, count)  # raises if there are too many
    saved = (count + SLOTS) * block - SLOTS * slot
    parts = {**measured.parts, WEIGHTS: measured.parts[WEIGHTS] - saved}
    return replace(measured, parts=parts, host=measured.host + (count + SLOTS) * slot, copied=(count + SLOTS) * slot)


class _Place:
    """Tells a meter where in the step the work is."""

    def __init__(self, meter: Meter, dit: DiT) -> None:
        self.meter, self.passes, self.direction = meter, 0, ""
        dit.register_forward_pre_hook(self._forward)
        dit.register_forward_hook(self._back)
        dit._enter = self._entering(dit._enter)

    def _forward(self, *_: Any) -> None:
        self.passes, self.direction = self.passes + 1, "forward"
        self.at(-1)

    def _back(self, *_: Any) -> None:
        self.direction = "back"

    def _entering(self, enter: Callable[[int], None]) -> Callable[[int], None]:
        def at(index: int) -> None:
            self.at(index)
            enter(index)

        return at

    def at(self, index: int) -> None:
        self.meter.begin(f"{self.passes} {self.direction} {index}")

    def watch_gradients(self, network: LoRANetwork) -> None:
        """Count gradients as such, and take the block whose gradients come for the place."""
        for name, branch in zip(network.module_names, network.children(), strict=True):
            for parameter in branch.parameters():
                parameter.register_post_accumulate_grad_hook(partial(self._gradient, block_number(name)))

    def _gradient(self, index: int, parameter: Tensor) -> None:
        self.meter.assign(GRADIENTS, parameter.grad)
        self.at(index)

    def watch_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Count what the optimizer makes as its own."""
        stack = ExitStack()

        def before(*_: Any) -> None:
            self.meter.begin("optimizer")
            stack.enter_context(self.meter.making(OPTIMIZER))

        optimizer.register_step_pre_hook(before)
        optimizer.register_step_post_hook(lambda *_: stack.close())


def _continued(run: Callable[[int], Meter], blocks: int) -> Measured:
    """What the step takes with so many blocks, from runs with few of them."""
    if blocks <= FEW + 1:
        meter = run(blocks)
        return Measured(max(meter.moments.values(), key=_size), sum(meter.flops.values()))
    few, more = run(FEW), run(FEW + 1)
    stretches = [line(few.moments[name], more.moments[name], blocks - FEW) for name in _same_place(few, from_end=False)]
    for name, later in _same_place(few, from_end=True).items():
        stretches.append(line(few.moments[name], more.moments[later], blocks - FEW))
    flops = [sum(meter.flops.values()) for meter in (few, more)]
    return Measured(max(stretches, key=_size), flops[0] + (blocks - FEW) * (flops[1] - flops[0]))


def _size(parts: dict[str, int]) -> int:
    return sum(parts.values())


def _same_place(meter: Meter, *, from_end: bool) -> dict[str, str]:
    """The moments of the smaller model whose place counts from the first block, or from the last; the larger one's."""
    names = {}
    for name in meter.moments:
        *first, last = name.split()
        index = int(last) if first else -1
        if not from_end and index < FEW - 1:
            names[name] = name
        elif from_end and index > 0:
            names[name] = " ".join([*first, str(index + 1)])
    return names


def _examples(config: DiTConfig, work: Work) -> Iterator[tuple[int, Example]]:
    """Endless micro-batches of zeros, made on the CPU when they are asked for."""
    index = 0
    while True:
        size = (work.samples, config.latent_channels, *work.latent)
        yield (
            index,
            Example(
                x0=torch.zeros(size),
                noise=torch.zeros(size),
                sigma=torch.full((work.samples,), 0.5),
                first_frame=torch.full((work.samples,), float(work.i2v)),
                condition=_condition(config, work),
            ),
        )
        index += 1


def _condition(config: DiTConfig, work: Work) -> Condition:
    batch = work.samples
    return Condition(
        text=torch.zeros(batch, work.text_tokens, config.text_dim),
        text_lengths=[work.text_tokens] * batch,
        glyphs=torch.zeros(batch, 0, config.glyph_dim),
        glyph_lengths=[0] * batch,
        vision=torch.zeros(batch, VISION_TOKENS, config.vision_dim) if work.i2v else None,
    )


def _lora_tensors(dit: DiT, options: TrainSettings, dtype: torch.dtype, device: str) -> dict[str, Tensor]:
    """A trained LoRA as sampling holds it: factors on the device in the model's dtype."""
    modules = dict(dit.named_modules())
    tensors = {}
    for name in select_modules(modules, options.include_patterns, options.exclude_patterns):
        layer, key = modules[name], kohya_name(name)
        assert isinstance(layer, nn.Linear | QuantisedLinear)
        tensors[f"{key}.lora_down.weight"] = torch.zeros(
            options.network_dim, layer.in_features, dtype=dtype, device=device
        )
        tensors[f"{key}.lora_up.weight"] = torch.zeros(
            layer.out_features, options.network_dim, dtype=dtype, device=device
        )
        tensors[f"{key}.alpha"] = torch.tensor(options.network_alpha)
    return tensors
