"""The denoising loop, for final samples and for the previews of a training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import pad

from hv15.errors import UserError
from hv15.models import Condition, PreparedCondition
from hv15.models.latents import condition_channels
from hv15.noise.levels import TIMESTEPS
from hv15.sample.cached import Cached

if TYPE_CHECKING:
    from hv15.models import DiT
    from hv15.sample.graphs import Replayed
    from hv15.sample.running import SampleWatcher
    from hv15.sample.super_resolution import LowResolution

    Transformer: TypeAlias = DiT | Replayed | Cached


@dataclass(frozen=True)
class Guidance:
    """Where guidance is used, and how."""

    lowest: float = 0.0
    highest: float = 1.0
    """The noise levels (sigma) between which it is used; in other steps only the conditional velocity."""
    zero_star: bool = False
    """Scale the unguided velocity to fit the guided one: CFG-Zero*, Fan et al. 2025."""

    def apply(self, unguided: Tensor, guided: Tensor, scale: float) -> Tensor:
        """Return u + g*(c - u) of velocities [B, C, F', h, w] in float32; with `zero_star`, s*u stands for u.

        s = <c, u> / <u, u> of each sample is the factor with which u comes nearest to c.
        """
        if self.zero_star:
            axes = tuple(range(1, unguided.ndim))
            products = (guided * unguided).sum(axes, keepdim=True), (unguided * unguided).sum(axes, keepdim=True)
            unguided = unguided * (products[0] / products[1].clamp_min(1e-8))
        return unguided + scale * (guided - unguided)


PLAIN = Guidance()


@torch.no_grad()  # not inference_mode, because training uses the tables that the model caches in a preview
def denoise(
    dit: Transformer,
    noise: Tensor,
    cond: Condition,
    uncond: Condition | None,
    sigmas: Tensor,
    guidance_scale: float,
    condition_latents: Tensor | None = None,
    progress: Callable[[int], None] | None = None,
    *,
    batch_cfg: bool = False,
    guidance: Guidance = PLAIN,
    zero_init_steps: int = 0,
    low: LowResolution | None = None,
    begin_step: Callable[[int], bool] | None = None,
    watcher: SampleWatcher | None = None,
) -> Tensor:
    """Denoise with Euler steps along the model's velocity; return scaled latents, float32 [B, C, F', h, w].

    Args:
        noise: [B, C, F', h, w], `hv15.sample.noise.initial_noise` on the model's device.
        cond, uncond: the positive and the negative condition, on the model's device. For i2v both have the same vision
            states. `uncond` may be None if `guidance_scale` is at most 1.
        sigmas: [steps + 1] from `hv15.sample.schedule.sigmas`.
        guidance_scale: classifier-free guidance u + g*(c - u); at most 1 means off, as in the official implementation.
        condition_latents: scaled latent [B, C, 1, h, w] of the first frame (i2v), or None (t2v). It is only a
            condition: frame 0 is denoised like any other.
        progress: called with the number of finished steps.
        batch_cfg: evaluate both branches as one batch: the same numbers, faster on a GPU, but twice the activations.
        guidance: where and how guidance is used.
        zero_init_steps: the number of first steps whose velocity is taken to be zero, without computing it.
        low: the latents that a model of super resolution starts from; None for any other.
        begin_step: called with the number of each step, from 0, before the model computes; returns whether it has
            changed the model.
        watcher: is shown the clean latents that are predicted, scaled, when it wants to see them.

    Raises:
        UserError: the model returned NaN or infinity.
    """
    guided = guidance_scale > 1
    if guided and uncond is None:
        raise ValueError("guidance above 1 needs an unconditional branch")
    levels = sigmas.float().tolist()
    uses_guidance = [guided and guidance.lowest <= level <= guidance.highest for level in levels[:-1]]
    guiding, alone = list[PreparedCondition](), list[PreparedCondition]()
    latents = noise.float()
    constant = condition_channels(condition_latents, like=latents)
    for step, ((level, following), here) in enumerate(zip(pairwise(levels), uses_guidance, strict=True)):
        if progress is not None and step:
            progress(step)
        if step < zero_init_steps:
            continue
        if (begin_step is not None and begin_step(step)) or not (guiding or alone):
            with_unguided, without = uncond if guided else None, not all(uses_guidance)
            guiding, alone = _prepared(dit, cond, with_unguided, joint=batch_cfg, alone=without)
        if isinstance(dit, Cached):
            dit.step = step
        x = torch.cat([latents, constant], dim=1)  # [B, 2C+1, F', h, w]
        if low is not None:
            x = torch.cat([x, low.channels(level, latents)], dim=1)  # [B, 3C+2, F', h, w]
        velocities = [_velocity(dit, x, branch, level, following) for branch in (guiding if here else alone)]
        if here:
            unguided, guide = torch.cat(velocities).chunk(2)
            velocity = guidance.apply(unguided, guide, guidance_scale)
        else:
            (velocity,) = velocities
        if watcher is not None and watcher.is_due(step + 1):
            watcher.show(step + 1, latents - velocity * level)
        latents = latents + velocity * (following - level)
    if progress is not None:
        progress(len(levels) - 1)
    if not bool(torch.isfinite(latents).all()):
        raise UserError(
            "the model returned NaN or infinity while denoising",
            hint="set sample.dtype to float32 or lower the LoRAs' multipliers; if that does not help, download "
            "models.dit again",
        )
    return latents


def _prepared(
    dit: Transformer, cond: Condition, uncond: Condition | None, *, joint: bool, alone: bool
) -> tuple[list[PreparedCondition], list[PreparedCondition]]:
    """Return what is computed in a step with guidance, and in one without, each the passes of a step.

    Args:
        uncond: None if no step has guidance.
        joint: both branches as one batch.
        alone: whether there are steps without guidance.
    """
    if uncond is None:
        return [], [dit.prepare(cond)]
    if joint:
        return [dit.prepare(stack_conditions([uncond, cond]))], [dit.prepare(cond)] if alone else []
    branches = [dit.prepare(uncond), dit.prepare(cond)]
    return branches, branches[1:]


def _velocity(dit: Transformer, x: Tensor, cond: PreparedCondition, sigma: float, following: float) -> Tensor:
    """Evaluate the model once, [n*B, C, F', h, w] in float32, where `cond` holds n branches of the batch."""
    x = x.repeat(cond.batch // x.shape[0], 1, 1, 1, 1)
    # float32 on purpose: bfloat16 would round a timestep of 731.25 to 732
    timestep = torch.full((x.shape[0],), TIMESTEPS * sigma, dtype=torch.float32, device=x.device)
    if not dit.config.meanflow:
        return dit(x, timestep, cond).float()
    # a mean-flow model also takes the end of the step
    return dit(x, timestep, cond, timestep_r=torch.full_like(timestep, TIMESTEPS * following)).float()


def stack_conditions(conditions: list[Condition]) -> Condition:
    """Join conditions along the batch axis; shorter texts are padded, which does not affect the result."""
    visions = [condition.vision for condition in conditions if condition.vision is not None]
    if visions and len(visions) < len(conditions):
        raise ValueError("some conditions have vision states and others have none")
    lengths = [condition.vision_lengths for condition in conditions if condition.vision_lengths is not None]
    return Condition(
        text=_stack([condition.text for condition in conditions]),
        text_lengths=[length for condition in conditions for length in condition.text_lengths],
        glyphs=_stack([condition.glyphs for condition in conditions]),
        glyph_lengths=[length for condition in conditions for length in condition.glyph_lengths],
        vision=torch.cat(visions) if visions else None,
        vision_lengths=[n for some in lengths for n in some] if len(lengths) == len(conditions) else None,
    )


def _stack(states: list[Tensor]) -> Tensor:
    """Join [B_i, L_i, D] into [sum B_i, max L_i, D], padded with zeros at the end."""
    longest = max(state.shape[1] for state in states)
    return torch.cat([pad(state, (0, 0, 0, longest - state.shape[1])) for state in states])
