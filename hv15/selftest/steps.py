"""Steps of the whole transformer: training and sampling, with each way to save memory, beside what the plan says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from hv15.config.transformer import TransformerSettings
from hv15.errors import UserError
from hv15.models import DiT
from hv15.models.dit_files import is_block_linear
from hv15.models.weights.quantised import check_weight_format, replace_linears
from hv15.out_of_memory import StageName
from hv15.plan.cost import Cost
from hv15.plan.devices import recognised
from hv15.plan.metered_steps import PassSize
from hv15.plan.times import Load, unit_seconds
from hv15.plan.transformer import denoising
from hv15.plan.transformer import training as planned_training
from hv15.records.json_values import Json
from hv15.records.selftest import Measured
from hv15.sample.denoise import denoise
from hv15.sample.graphs import replayed
from hv15.selftest.breakdown import profiled
from hv15.selftest.checks import MachineCheck
from hv15.selftest.layers import FORMATS
from hv15.selftest.planned import PlannedWork
from hv15.selftest.sizes import Sizes, VideoSize
from hv15.selftest.stand import Skipped, Stand
from hv15.selftest.training import Options, Training, make_settings, random_condition, random_example, ready, training
from hv15.train.examples import Example
from hv15.units import size

SIGMAS = torch.tensor([1.0, 0.9])
"""One step. Made here, where it has numbers whatever device is under test."""
GUIDANCE = 6.0
GRAPHS: Options = {"cuda_graphs": True}


@dataclass(frozen=True)
class TransformerWork:
    """A step of the transformer, as the planner runs it without data."""

    sizes: Sizes
    clip: VideoSize
    dtype: torch.dtype
    gpu: bool
    options: tuple[tuple[str, Json], ...] = ()
    sampling: bool = False

    @property
    def settings(self) -> Options:
        """Of `train:` or `sample:`."""
        return {**dict(self.options), **({} if self.sampling else {"network_dim": self.sizes.rank})}

    def plan(self) -> Cost:
        """Return what the step takes."""
        clip, tokens = self.clip, self.sizes.text_tokens
        shape = PassSize(clip.batch, clip.latent, tokens, i2v=False)
        if self.sampling:
            settings = make_settings(sample=self.settings)
            return denoising(settings, self.sizes.dit, self.dtype, shape, guided=True, with_lora=False, gpu=self.gpu)
        return planned_training(make_settings(self.settings), self.sizes.dit, self.dtype, shape, gpu=self.gpu)


def main_checks(stand: Stand) -> list[MachineCheck]:
    """The steps that tell most: training and sampling as they are by default."""
    steps, sizes = TransformerSteps(stand), stand.sizes
    return [
        MachineCheck("full size", f"training step, {sizes.main}", partial(steps.train, sizes.main, profile=True), 25),
        MachineCheck("full size", f"training step, {sizes.small}", partial(steps.train, sizes.small), 8),
        MachineCheck("full size", f"guided sampling step, {sizes.small}", partial(steps.sample, sizes.small), 8),
        MachineCheck(
            "full size",
            f"guided sampling step, CUDA graphs, {sizes.small}",
            partial(steps.sample, sizes.small, GRAPHS),
            8,
        ),
    ]


def more_checks(stand: Stand) -> list[MachineCheck]:
    """The same with less memory, and the largest size."""
    steps, sizes = TransformerSteps(stand), stand.sizes
    return [
        MachineCheck(
            "full size",
            f"training step, {label}{clip}",
            partial(steps.train, clip, options),
            60 if clip == sizes.large and sizes.is_full else 15,
            needs=needs,
        )
        for label, clip, options, needs in _variants(sizes)
    ]


def _variants(sizes: Sizes) -> list[tuple[str, VideoSize, Options, tuple[str, ...]]]:
    """Label, size, settings of `train:`, and the packages that they need."""
    return [
        *((f"{kind}, ", sizes.small, {"quantize": kind}, packages) for kind, packages in FORMATS.items()),
        *((f"swap {count}, ", sizes.small, {"blocks_to_swap": count}, ()) for count in sizes.swapped),
        ("offload, ", sizes.main, {"gradient_checkpointing_cpu_offload": True}, ()),
        ("", sizes.large, {}, ()),
    ]


def main_works(stand: Stand) -> list[TransformerWork]:
    """What `main_checks` ask the planner for."""
    steps, sizes = TransformerSteps(stand), stand.sizes
    return [
        steps.work(sizes.main),
        steps.work(sizes.small),
        steps.work(sizes.small, sampling=True),
        steps.work(sizes.small, GRAPHS, sampling=True),
    ]


def more_works(stand: Stand) -> list[TransformerWork]:
    """What `more_checks` ask the planner for."""
    steps = TransformerSteps(stand)
    return [steps.work(clip, options) for _, clip, options, _ in _variants(stand.sizes)]


class TransformerSteps:
    """Runs steps of the transformer of the stand's sizes, which is made anew only for another number format."""

    def __init__(self, stand: Stand) -> None:
        self.stand = stand

    def work(self, clip: VideoSize, options: Options | None = None, *, sampling: bool = False) -> TransformerWork:
        """A step as the planner sees it."""
        stand = self.stand
        return TransformerWork(
            stand.sizes, clip, stand.dtype, stand.device.type != "cpu", tuple((options or {}).items()), sampling
        )

    def train(self, clip: VideoSize, options: Options | None = None, *, profile: bool = False) -> Measured:
        """An optimizer step of a LoRA, by the trainer's own code."""
        stand, work = self.stand, self.work(clip, options)
        cost = self._cost(work)
        config, lengths = stand.sizes.dit, [stand.sizes.text_tokens] * clip.batch
        dit = self._transformer(make_settings(work.settings).train)
        example = random_example(config, clip.latent, lengths)
        if stand.on_cuda:
            example = example.pinned()
        with training(dit, stand.device, work.settings) as made:
            run = partial(_run, made, example, stand)
            run()  # the optimizer's state is made
            return measured_step(
                stand, "train", stand.dtype, cost, run, dit, made.network, *made.state(), profile=profile
            )

    def sample(self, clip: VideoSize, options: Options | None = None) -> Measured:
        """A step of the denoising loop with guidance: the transformer runs twice."""
        stand, work = self.stand, self.work(clip, options, sampling=True)
        settings = make_settings(sample=work.settings).sample
        if settings.cuda_graphs and stand.device.type == "cpu":
            raise Skipped("only on GPUs")
        cost = self._cost(work)
        dit = self._transformer(settings)
        shape = (clip.batch, stand.sizes.dit.latent_channels, *clip.latent)
        cond, uncond = (
            random_condition(stand.sizes.dit, [stand.sizes.text_tokens], seed).to(stand.device, stand.dtype)
            for seed in (1, 2)
        )
        noise = stand.randn(*shape, dtype=torch.float32)
        with ready(dit, settings, stand.device):
            model = replayed(dit, settings, stand.device)
            step = partial(denoise, model, noise, cond, uncond, SIGMAS, GUIDANCE)
            # a repeated pass makes no tensors: its memory is that of the step in which it was recorded, one of two
            memory = stand.peak_memory(lambda: (step(), step()), dit)
            return measured_step(stand, "denoise", stand.dtype, cost, step, memory=memory, profile=True)

    def _cost(self, work: TransformerWork) -> Cost | None:
        """What the planner says.

        Raises:
            Skipped: the number format or the size is not possible on this device.
        """
        kind = dict(work.options).get("quantize")
        if kind is not None:
            try:
                check_weight_format(str(kind), self.stand.device)
            except UserError as error:
                raise Skipped(error.message) from None
        return planned_cost(self.stand, work)

    def _transformer(self, settings: TransformerSettings) -> DiT:
        """The transformer with the blocks' weights in the number format that the settings ask for."""
        stand, kind = self.stand, settings.quantize

        def build() -> DiT:
            dit = DiT(stand.sizes.dit)
            if kind != "none":
                replace_linears(dit, kind, is_block_linear)
            return dit

        return stand.full_size(f"transformer, {kind}", lambda: stand.random(build, stand.dtype))


def _run(made: Training, example: Example, stand: Stand) -> None:
    """A step. On the CPU with a copy of the example, whose memory counts: moving it to the device makes none there."""
    if stand.device.type == "cpu":
        example = example.copied()
    made.run(example)


def planned_cost(stand: Stand, work: PlannedWork) -> Cost | None:
    """What the planner says of a step; None if it is not asked.

    Raises:
        Skipped: the step does not fit into the device's memory.
    """
    if stand.plans is None:
        return None
    cost = stand.plans.of(work)
    if cost.peak > stand.memory:
        raise Skipped(f"needs {size(cost.peak)}, and the device has {size(stand.memory)}")
    return cost


def measured_step(
    stand: Stand,
    stage: StageName,
    dtype: torch.dtype,
    cost: Cost | None,
    step: Callable[[], object],
    *held: torch.nn.Module | torch.Tensor,
    memory: int | None = None,
    profile: bool = False,
) -> Measured:
    """Measure a step, and keep what its figures say of the device.

    Args:
        dtype: of the products.
        cost: what the planner says.
        held: see `Stand.peak_memory`.
        memory: the step's peak in bytes, if it is known already.
        profile: also find out where the time goes.
    """
    seconds = stand.clock.seconds(step)
    memory = memory or stand.peak_memory(step, *held)
    times = profiled(stand, step, seconds) if profile else {}
    if cost is None or seconds is None:
        return Measured(seconds=seconds, memory=memory, times=times)
    device = recognised(stand.rates.device, stand.memory)
    name = str(dtype).removeprefix("torch.")
    product = stand.rates.products.get(name)
    peak = device.tflops * 1e12 if device.tflops else product
    if stand.sizes.is_full and product and not cost.copied:  # the wait for copies is planned by itself
        stand.rates.utilisation.setdefault(stage, cost.flops / seconds / product)
    if stand.on_cuda and stage == "train":
        _keep_overheads(stand)
    return Measured(
        seconds=seconds,
        flops=float(cost.flops),
        share=cost.flops / seconds / peak if peak else None,
        memory=memory,
        planned_memory=cost.peak,
        planned_seconds=unit_seconds(Load(cost.work, cost.copied), device, stage, name),
        times=times,
    )


def _keep_overheads(stand: Stand) -> None:
    """Of the first training step: what torch's allocator holds in vain, and what is held beside it.

    That is the driver, the libraries, and other processes on this GPU.
    """
    if stand.rates.fragments is not None:
        return
    reserved = torch.cuda.max_memory_reserved(stand.device)
    used = torch.cuda.max_memory_allocated(stand.device)
    free, total = torch.cuda.mem_get_info(stand.device)
    context = total - free - torch.cuda.memory_reserved(stand.device)
    stand.learn(fragments=(reserved - used) / reserved, context=context if context > 0 else None)
