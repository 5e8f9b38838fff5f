"""Makes the inputs of one forward pass from a micro-batch: all random draws, the noisy input, the target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hv15.cache.batches import MicroBatch, Stores, TrainingItem, read_batch, read_masks
from hv15.data.captions import caption_key
from hv15.models import Condition, DiT
from hv15.models.latents import condition_channels, scale
from hv15.noise.levels import TIMESTEPS
from hv15.train import flow, random
from hv15.train.timesteps import SigmaRule
from hv15.train.weighting import LossWeight

EMPTY_CAPTION = caption_key("")
"""Key of the text item of the empty caption, which caption dropout uses."""


@dataclass(frozen=True)
class Example:
    """A micro-batch with its random draws, made on the CPU and then moved to the model's device."""

    x0: Tensor
    """Scaled latents [B, C, F', h, w], fp32."""
    noise: Tensor
    """[B, C, F', h, w], fp32."""
    sigma: Tensor
    """[B], fp32; 1 is noise."""
    weight: Tensor
    """[B], fp32: what each sample's loss is multiplied by."""
    first_frame: Tensor
    """[B], fp32: 1 where latent frame 0 is the condition (i2v), else 0."""
    condition: Condition
    mask: Tensor | None = None
    """[B, F', h, w], fp32: how much each position counts in the loss, from 0 to 1; None: all count 1."""
    with_prior: bool = False
    """Whether the model without the LoRA predicts, too."""
    targets_prior: bool = False
    """Whether that prediction is the target, instead of the clip's own velocity."""
    outside_weight: float = 0.0
    """Factor on the loss against that prediction where the mask is not 1."""

    def to(self, device: torch.device, dtype: torch.dtype) -> Example:
        """Move to the model's device; conditions are cast to the model's dtype, tensors for the loss stay fp32."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True), self.condition.to(device, dtype))

    def pinned(self) -> Example:
        """Return a copy in pinned memory, from which `to` copies to a GPU without waiting."""
        return self._each(torch.Tensor.pin_memory, self.condition.pinned())

    def copied(self) -> Example:
        """Return a copy in memory of its own."""
        return self._each(torch.Tensor.clone, self.condition.copied())

    def rounded(self, dtype: torch.dtype) -> Example:
        """Return a copy whose numbers are exact in another floating dtype, in fp32."""
        return self._each(
            lambda tensor: tensor.to(dtype).float(), self.condition.to("cpu", dtype).to("cpu", torch.float32)
        )

    def _each(self, change: Callable[[Tensor], Tensor], condition: Condition) -> Example:
        return replace(
            self,
            x0=change(self.x0),
            noise=change(self.noise),
            sigma=change(self.sigma),
            weight=change(self.weight),
            first_frame=change(self.first_frame),
            condition=condition,
            mask=None if self.mask is None else change(self.mask),
        )

    def model_input(self) -> Tensor:
        """Return [B, 2C+1, F', h, w], fp32: noisy latents, then condition latents and their mask, both 0 for t2v.

        The condition is the scaled latent frame 0 of the clip: the VAE is causal, so it equals the latent of the image.
        """
        channels = condition_channels(self.x0[:, :, 0], like=self.x0)
        return torch.cat(
            [flow.noisy(self.x0, self.noise, self.sigma), channels * self.first_frame.view(-1, 1, 1, 1, 1)], 1
        )

    def error(self, dit: DiT) -> Tensor:
        """Return the error of the velocity that the model predicts, fp32 [B, C, F', h, w]."""
        return self.prediction(dit) - self.velocity()

    def velocity(self) -> Tensor:
        """Return the clips' own velocity, fp32 [B, C, F', h, w]."""
        return flow.velocity(self.x0, self.noise)

    def prediction(self, dit: DiT) -> Tensor:
        """Return the velocity that the model predicts, fp32 [B, C, F', h, w]."""
        timestep = TIMESTEPS * self.sigma
        # A mean-flow model also takes the end of its step; for a step of length 0 it predicts the velocity itself.
        end = timestep if dit.config.meanflow else None
        prediction: Tensor = dit(self.model_input().to(dit.dtype), timestep, self.condition, timestep_r=end)
        return prediction.float()


@dataclass(frozen=True)
class ExampleReader:
    """Reads micro-batches and makes their random draws, each determined by the seed and the global sample index."""

    stores: Stores
    seed: int
    sigma_rule: SigmaRule
    loss_weight: LossWeight
    i2v_prob: float
    """Probability that a clip is trained with its first frame as the condition; 0 for t2v, even if image features are
    stored. A still image has no frames after the first, so it is always trained as t2v."""
    caption_dropout: float = 0.0

    def __call__(self, batch: MicroBatch) -> Example:
        """Return the example of a micro-batch.

        Raises:
            UserError: an item is missing or damaged.
        """
        with_image = [
            item.shape[0] > 1 and random.chance(self.i2v_prob, self.seed, "i2v", sample)
            for item, sample in zip(batch.items, batch.samples, strict=True)
        ]
        captions = [self._caption(item, sample) for item, sample in zip(batch.items, batch.samples, strict=True)]
        content = read_batch(self.stores, batch.items, captions=captions, with_vision=with_image)
        x0 = scale(content.latents.float())
        sigma = self.sigma_rule.sigmas(self.seed, batch.samples)
        mask, rule = read_masks(self.stores, batch.items, self._uses_mask(batch)), batch.loss
        with_prior = self.needs_prior(batch)
        return Example(
            x0=x0,
            noise=torch.stack([random.noise(tuple(x0.shape[1:]), self.seed, sample) for sample in batch.samples]),
            sigma=sigma,
            weight=torch.tensor(
                [
                    self.loss_weight(each) * item.loss_weight
                    for each, item in zip(sigma.tolist(), batch.items, strict=True)
                ]
            ),
            first_frame=torch.tensor(with_image, dtype=torch.float32),
            condition=content.condition,
            mask=None if mask is None else mask.clamp(min=rule.unmasked_weight),
            with_prior=with_prior,
            targets_prior=rule.targets_prior,
            outside_weight=rule.masked_prior_preservation_weight if with_prior else 0.0,
        )

    def needs_prior(self, batch: MicroBatch) -> bool:
        """Whether the loss of a micro-batch needs the prediction of the model without the LoRA."""
        return batch.loss.targets_prior or (
            batch.loss.masked_prior_preservation_weight > 0 and any(self._uses_mask(batch))
        )

    def _uses_mask(self, batch: MicroBatch) -> list[bool]:
        """Whether the mask of each sample is used."""
        probability = batch.loss.unmasked_probability
        return [
            bool(item.mask) and not random.chance(probability, self.seed, "unmasked", sample)
            for item, sample in zip(batch.items, batch.samples, strict=True)
        ]

    def _caption(self, item: TrainingItem, sample: int) -> str:
        """Return the key of the text that a sample is shown with."""
        if random.chance(self.caption_dropout, self.seed, "caption_dropout", sample):
            return EMPTY_CAPTION
        if not item.variants:
            return item.caption
        return item.variants[random.choice(len(item.variants), self.seed, "caption", sample)]
