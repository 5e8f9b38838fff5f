"""A transformer with a LoRA and an example: what the checks of numbers and of full-size steps train."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from hv15.config import Settings
from hv15.config.transformer import TransformerSettings
from hv15.lora import LoRANetwork
from hv15.models import Condition, DiT, DiTConfig
from hv15.models.ready import reset, set_up
from hv15.records.json_values import Json
from hv15.selftest.stand import moved
from hv15.train.examples import Example
from hv15.train.losses import mean_square
from hv15.train.networks import make_network
from hv15.train.optimizer_step import OptimizerStep
from hv15.train.run import make_optimizer_step

Options = Mapping[str, Json]
"""Settings of `train:` or `sample:` that differ from the defaults."""
REPEATABLE: Options = {"attn_mode": "sdpa"}
"""With these, and inside `repeatable`, two runs give the same bits."""


def make_settings(train: Options | None = None, sample: Options | None = None) -> Settings:
    """A project's settings; AdamW needs no further package."""
    base: dict[str, object] = {"models": {"source": "demo"}, "datasets": [{"video_directory": "clips"}]}
    training = {"optimizer_type": "AdamW", "network_dim": 16, "network_alpha": 16, **(train or {})}
    return Settings.model_validate({**base, "train": training, "sample": dict(sample or {})})


def random_condition(config: DiTConfig, text_lengths: list[int], seed: int = 1) -> Condition:
    """Texts of these lengths, without quoted texts, on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randn(len(text_lengths), max(text_lengths), config.text_dim, generator=generator)
    return Condition(text, text_lengths, torch.zeros(len(text_lengths), 0, config.glyph_dim), [0] * len(text_lengths))


def random_example(
    config: DiTConfig, latent: tuple[int, int, int], text_lengths: list[int], *, seed: int = 0, noise: float = 0.5
) -> Example:
    """A micro-batch of random latents (frames, height, width) and texts on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    batch = len(text_lengths)
    shape = (batch, config.latent_channels, *latent)
    return Example(
        x0=torch.randn(shape, generator=generator),
        noise=torch.randn(shape, generator=generator),
        sigma=torch.full((batch,), noise),
        weight=torch.ones(batch),
        first_frame=torch.zeros(batch),
        condition=random_condition(config, text_lengths, seed + 1),
    )


@dataclass(frozen=True)
class Training:
    """A transformer that is set up, and the LoRA that is trained on it."""

    dit: DiT
    network: LoRANetwork
    step: OptimizerStep

    def run(self, example: Example) -> Tensor:
        """One optimizer step of one micro-batch; return its losses and other numbers, fp32 [n], on the device."""
        queued = self.step.run([(0, example)], micro_batches=1, samples=len(example.sigma), lr_factor=1.0)
        return queued.tensor[:-2]  # the last two are of the limit of norms, and NaN without one

    def gradients(self, example: Example) -> Tensor:
        """The gradients of all LoRA weights in one tensor, fp32 [n], on the device; nothing is updated."""
        self.network.zero_grad(set_to_none=True)
        mean_square(example.to(self.step.device, self.dit.dtype).error(self.dit)).mean().backward()
        found = [parameter.grad for parameter in self.network.parameters() if parameter.grad is not None]
        self.network.zero_grad(set_to_none=True)
        return torch.cat([gradient.flatten() for gradient in found])

    def state(self) -> list[Tensor]:
        """The optimizer's tensors, of any shape; none before the first step."""
        states = self.step.optimizer.state.values()
        return [value for state in states for value in state.values() if isinstance(value, Tensor)]

    def weights(self) -> Tensor:
        """All LoRA weights in one tensor, fp32 [n]."""
        return torch.cat([parameter.detach().flatten() for parameter in self.network.parameters()])


@contextmanager
def repeatable() -> Iterator[None]:
    """Compute torch's attention unfused: the backward passes of fused kernels add in any order on a GPU."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


@contextmanager
def training(
    dit: DiT, device: torch.device, options: Options | None = None, *, random_up: bool = False
) -> Iterator[Training]:
    """Set a transformer up and attach a LoRA to it; it is as before afterwards.

    Args:
        random_up: with a LoRA that changes something; a new one does not, and half of its gradients are zeros.
    """
    settings = make_settings(options)
    with ready(dit, settings.train, device):
        network = make_network(settings, dit)
        if random_up:
            _fill_up(network)
        try:
            yield Training(dit, network, make_optimizer_step(settings.train, dit, network, device))
        finally:
            network.detach()


@contextmanager
def ready(dit: DiT, settings: TransformerSettings, device: torch.device) -> Iterator[None]:
    """Set a transformer up for a section's settings; afterwards it is as before, and on the device."""
    try:
        set_up(dit, settings, device)
        yield
    finally:
        reset(dit)
        if settings.blocks_to_swap:
            moved(dit, device)


def _fill_up(network: LoRANetwork) -> None:
    generator = torch.Generator().manual_seed(2)
    for name, parameter in network.named_parameters():
        if "lora_up" in name:
            values = torch.randn(parameter.shape, generator=generator) / 10
            parameter.data.copy_(values)
