"""What step caching, guidance in an interval and sage attention save, and what they change, on the demo's own model.

    OMP_NUM_THREADS=1 python bench/bench_step_cache.py [--steps 50] [--seeds 3] [--repeats 3]

Error: the norm of the difference of the final latents to those of the run that computes everything, divided by that of
the latter; the mean over seeds. Computed: the part of the block passes that was computed. Time: of the median run,
divided by that of the run that computes everything; the toy is so small that what is outside its blocks counts. Sage's
kernel runs on GPUs alone: here its rounding is done, which tells the error but not the time.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor

from hv15.demo.layout import BASE, DEMO_FILES
from hv15.models import Condition, DiT, load_dit
from hv15.models.attention import Attention
from hv15.sample.cached import Cached
from hv15.sample.denoise import PLAIN, Guidance, denoise
from hv15.sample.noise import initial_noise
from hv15.sample.prompts import StepCaching
from hv15.sample.schedule import sigmas

SCALE, SHIFT, SIZE = 6.0, 5.0, (3, 4, 4)


class Case(NamedTuple):
    name: str
    caching: StepCaching | None = None
    guidance: Guidance = PLAIN
    zero_init_steps: int = 0
    sage: float = 0.0
    """The part of the blocks, in the middle, with attention in 8 bits."""


def cases() -> list[Case]:
    planned = [
        Case(f"{rule}, every {interval}th", StepCaching(rule, 0.22, 0.9, interval, 0.1))  # type: ignore[arg-type]
        for rule in ("deepcache", "teacache", "taylorcache")
        for interval in (2, 4)
    ]
    adaptive = [
        Case(f"adaptive, threshold {threshold}", StepCaching("adaptive", 0, 1, 1, threshold))
        for threshold in (0.02, 0.05, 0.1, 0.2, 0.4)
    ]
    guided = [
        Case("guidance from 0.2 to 0.95", guidance=Guidance(0.2, 0.95)),
        Case("CFG-Zero*, 1 step of zeros", guidance=Guidance(zero_star=True), zero_init_steps=1),
    ]
    rounded = [Case("sage attention, middle half", sage=0.5), Case("sage attention, all blocks", sage=1.0)]
    return [*planned, *adaptive, *guided, *rounded]


def sage_like(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention [B, N, H, D] with the rounding of SageAttention's kernel (Zhang et al. 2024).

    k without its mean and q are in 8 bits, weights and v in float16.
    """
    q, k = in_8_bits(q, 128), in_8_bits(k - k.mean(1, keepdim=True), 64)
    weights = (torch.einsum("bnhd,bmhd->bhnm", q, k) / q.shape[-1] ** 0.5).softmax(-1)
    return torch.einsum("bhnm,bmhd->bnhd", weights.half().float(), v.half().float())


def in_8_bits(x: Tensor, tokens: int) -> Tensor:
    """Round x [B, N, H, D]; each head has one scale for so many tokens."""
    parts = []
    for part in x.split(tokens, 1):
        scale = part.abs().amax((1, 3), keepdim=True) / 127
        parts.append((part / scale).round() * scale)
    return torch.cat(parts, 1)


def run(dit: DiT, case: Case, steps: int, seed: int, texts: tuple[Condition, Condition]) -> tuple[Tensor, float, float]:
    """Return the latents, the part of the block passes that was computed, and the seconds."""
    count = len(dit.double_blocks)
    first = round(count * (1 - case.sage) / 2)
    dit.block_attention = dict.fromkeys(range(first, count - first), Attention(sage_like)) if case.sage else {}
    model = dit if case.caching is None else Cached(dit, case.caching, steps)
    noise = initial_noise((1, dit.config.latent_channels, *SIZE), seed)
    begun = perf_counter()
    latents = denoise(
        model,
        noise,
        texts[0],
        texts[1],
        sigmas(steps, SHIFT),
        SCALE,
        guidance=case.guidance,
        zero_init_steps=case.zero_init_steps,
    )
    seconds = perf_counter() - begun
    computed = [len(cache.computed) / steps for cache in model.caches.values()] if isinstance(model, Cached) else [1.0]
    return latents, statistics.mean(computed), seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    dit = load_dit(BASE / Path(DEMO_FILES["dit"]).relative_to("demo"), dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    texts = tuple(
        Condition(
            torch.randn(1, count, dit.config.text_dim, generator=generator),
            [count],
            torch.zeros(1, 0, dit.config.glyph_dim),
            [0],
        )
        for count in (24, 8)
    )
    full = {seed: run(dit, Case("all"), options.steps, seed, texts) for seed in range(options.seeds)}
    usual = statistics.median(run(dit, Case("all"), options.steps, 0, texts)[2] for _ in range(options.repeats))
    print(f"{'':32} {'computed':>8} {'error':>8} {'time':>6}")
    for case in cases():
        errors, parts = [], []
        for seed, (wanted, _, _) in full.items():
            latents, part, _ = run(dit, case, options.steps, seed, texts)
            errors.append(float((latents - wanted).norm() / wanted.norm()))
            parts.append(part)
        seconds = statistics.median(run(dit, case, options.steps, 0, texts)[2] for _ in range(options.repeats))
        time = "-" if case.sage else f"{seconds / usual:.2f}"
        print(f"{case.name:32} {statistics.mean(parts):8.2f} {statistics.mean(errors):8.4f} {time:>6}")


if __name__ == "__main__":
    main()
