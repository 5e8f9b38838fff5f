"""The real steps of training and of sampling under a meter: without data, or on the CPU to see what they really take.

A training step is the trainer's own (`hv15.train.optimizer_step`), a sampling step that of the one denoising loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hv15.config import Settings
from hv15.config.train import TrainSettings
from hv15.config.transformer import TransformerSettings
from hv15.lora.apply import apply_lora
from hv15.lora.names import kohya_name
from hv15.lora.sizes import NetworkSizes, settings_network
from hv15.memory import WEIGHTS
from hv15.models import Condition, DiT, DiTConfig
from hv15.models.dit_files import is_block_linear
from hv15.models.ready import set_up
from hv15.models.vision import VisionConfig
from hv15.models.weights.quantised import QuantisedLinear, replace_linears
from hv15.plan.kernels import WithoutData
from hv15.plan.meter import Meter
from hv15.plan.optimizer_memory import keep_out_of_pages, plannable
from hv15.plan.stretches import StretchHook
from hv15.sample.denoise import denoise
from hv15.sample.graphs import replayed
from hv15.sample.super_resolution import LowResolution
from hv15.train.examples import Example
from hv15.train.losses import mean_square
from hv15.train.networks import attach_network
from hv15.train.run import make_optimizer_step

LORA, AVERAGE = "LoRA", "moving average"
FIRST_LATENT = (1, 4, 4)
"""Latent of the first step, which only gives the optimizer its state."""
ON_CPU = {"fused_kernels": False, "ema_device": "model"}
"""What a plan for a CPU changes in the settings, which are a GPU's by default."""


@dataclass(frozen=True)
class PassSize:
    """Size of what one forward pass of the transformer sees."""

    samples: int
    latent: tuple[int, int, int]
    """Latent frames, height, width."""
    text_tokens: int
    i2v: bool
    prior_share: float = 0.0
    """Share of the micro-batches for which the model without the LoRA predicts, too."""


def micro_batches(options: TrainSettings) -> int:
    """How many micro-batches of a step are run: more than two take no more memory than two."""
    return min(options.gradient_accumulation_steps, 2)


def run_training(
    settings: Settings,
    config: DiTConfig,
    dtype: torch.dtype,
    size: PassSize,
    *,
    network: NetworkSizes | None = None,
    validation: PassSize | None = None,
    device: str = "meta",
    gpu: bool = False,
) -> Meter:
    """Run two optimizer steps: a small one, which gives the optimizer its state, and the one whose work is counted.

    With `validation`, also measure a clip of that size.

    Args:
        settings: of `train:`.
        size: of the second step's micro-batches.
        network: sizes of the LoRA; None: what the settings ask for on this transformer.
        device: "meta", or "cpu" to compute it all.
        gpu: as on a GPU, whose optimizers update all weights at once, and whose kernels are fused and have workspaces.
    """
    network = network or settings_network(config, settings)
    settings = _without_randomness(settings)
    train = plannable(settings.train)
    options = _with_gpu_optimizer(train) if gpu else train.model_copy(update=ON_CPU)
    if gpu and options.ema_device == "cpu":
        options = options.model_copy(update={"ema_decay": 0.0})
    meter = Meter(device, workspaces=gpu)
    with WithoutData(), meter:
        dit = make_dit(meter, config, options, dtype, device)
        with meter.making(LORA):
            trained = attach_network(options, dit, network)
        meter.assign(LORA, trained)
        step = make_optimizer_step(options, dit, trained, torch.device(device), options.gpus)
        step.guard.at_once = step.guard.at_once or not gpu
        keep_out_of_pages(step.optimizer)
        if step.average is not None:
            meter.assign(AVERAGE, *step.average.values)
        hook = StretchHook(meter, dit)
        hook.watch_gradients(trained)
        hook.watch_optimizer(step.optimizer)
        count = micro_batches(options)
        for each in (replace(size, latent=FIRST_LATENT), size):
            meter.work.clear()
            step.run(examples(config, each, count), micro_batches=count, samples=count * each.samples, lr_factor=1.0)
        if size.prior_share:
            with trained.switched_off(dit):
                _leave_out(meter, dit, examples(config, size, 1), count * (1 - size.prior_share), torch.device(device))
        if validation is not None:
            work, meter.work = meter.work, meter.validation
            with torch.no_grad():
                for _, example in examples(config, validation, 1):
                    mean_square(example.to(torch.device(device), dtype).error(dit))
            meter.work = work
    return meter


def _leave_out(
    meter: Meter, dit: DiT, passes: Iterable[tuple[int, Example]], count: float, device: torch.device
) -> None:
    """Take from the work of a step, in which all micro-batches have a pass without the LoRA, so many such passes."""
    work, meter.work = meter.work, {}
    with torch.no_grad():
        for _, example in passes:
            example.to(device, dit.dtype).prediction(dit)
    without, meter.work = meter.work, work
    for kind, of in without.items():
        meter.work[kind] = meter.work[kind].plus(of, -count)


def run_denoising(
    settings: Settings,
    config: DiTConfig,
    dtype: torch.dtype,
    size: PassSize,
    *,
    guided: bool,
    batch_cfg: bool = False,
    with_lora: bool = True,
    network: NetworkSizes | None = None,
    device: str = "meta",
    gpu: bool = False,
) -> Meter:
    """Run one step of sampling, or of super resolution if the transformer takes a smaller video.

    Args:
        settings: of `sample:`, and of `train:` for the LoRA.
        guided, batch_cfg: see `hv15.sample.denoise.denoise`.
        with_lora: with the LoRA that `train:` trains.
        network: see `run_training`.
        device, gpu: see `run_training`.
    """
    meter = Meter(device, workspaces=gpu)
    with WithoutData(), meter:
        options = settings.sample if gpu else settings.sample.model_copy(update={"fused_kernels": False})
        dit = make_dit(meter, config, options, dtype, device)
        if with_lora:
            with meter.making(LORA):
                apply_lora(dit, _lora_tensors(network or settings_network(config, settings), dtype, device))
        StretchHook(meter, dit)
        cond = empty_condition(config, size).to(device)
        shape = (size.samples, config.latent_channels, *size.latent)
        noise = torch.zeros(shape).to(device)
        first = torch.zeros(*shape[:2], 1, *shape[3:]).to(device) if size.i2v else None
        sigmas = torch.tensor([1.0, 0.0])
        low = LowResolution(torch.zeros(shape).to(device)) if config.low_resolution else None
        model = replayed(dit, settings.sample, torch.device(device)) if gpu else dit
        scale = 6.0 if guided else 1.0
        denoise(model, noise, cond, cond if guided else None, sigmas, scale, first, batch_cfg=batch_cfg, low=low)
    return meter


def make_dit(meter: Meter, config: DiTConfig, settings: TransformerSettings, dtype: torch.dtype, device: str) -> DiT:
    """Return the transformer as `load_ready` would give it, without a file; its weights count as such."""
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


def examples(config: DiTConfig, size: PassSize, count: int) -> Iterator[tuple[int, Example]]:
    """Yield micro-batches of zeros with their indices, each made on the CPU when it is asked for."""
    for index in range(count):
        shape = (size.samples, config.latent_channels, *size.latent)
        example = Example(
            x0=torch.zeros(shape),
            noise=torch.zeros(shape),
            sigma=torch.full((size.samples,), 0.5),
            weight=torch.ones(size.samples),
            first_frame=torch.full((size.samples,), float(size.i2v)),
            condition=empty_condition(config, size),
            with_prior=size.prior_share > 0,
            targets_prior=size.prior_share > 0,
        )
        yield index, example


def empty_condition(config: DiTConfig, size: PassSize) -> Condition:
    """Return a condition of zeros, without quoted texts."""
    batch = size.samples
    return Condition(
        text=torch.zeros(batch, size.text_tokens, config.text_dim),
        text_lengths=[size.text_tokens] * batch,
        glyphs=torch.zeros(batch, 0, config.glyph_dim),
        glyph_lengths=[0] * batch,
        vision=torch.zeros(batch, VisionConfig().num_tokens, config.vision_dim) if size.i2v else None,
    )


def _without_randomness(settings: Settings) -> Settings:
    """Leave out dropout, whose masks are small and need the device's own random numbers."""
    none = {"network_dropout": 0.0, "rank_dropout": 0.0, "module_dropout": 0.0}
    return settings.model_copy(update={"train": settings.train.model_copy(update=none)})


def _with_gpu_optimizer(options: TrainSettings) -> TrainSettings:
    """Choose as torch does on a GPU: AdamW updates all weights at once."""
    if options.optimizer_type != "AdamW":
        return options
    return options.model_copy(update={"optimizer_args": {"foreach": True, **options.optimizer_args}})


def _lora_tensors(network: NetworkSizes, dtype: torch.dtype, device: str) -> dict[str, Tensor]:
    """A trained LoRA as sampling holds it on the device: matrices that its input is multiplied by have its dtype."""
    held = dtype if network.kind.type in ("lora", "dora") else torch.float32
    tensors = {}
    for name in network.layers:
        key = kohya_name(name)
        for part, shape in network.shapes(name).items():
            tensors[f"{key}.{part}"] = torch.zeros(shape, dtype=held, device=device)
        tensors[f"{key}.alpha"] = torch.tensor(network.alphas[name])
    return tensors
