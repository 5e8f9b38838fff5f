"""Trains the networks of the demo's super resolution on pairs of clips, in three cycles.

The transformer begins as the demo's base. It is shown what `hv15 upsample` shows it: latents from the upsampler, noised
once, above the noise level at which they are switched off, nothing of them below, and for some clips the large first
frame (i2v). It also takes the end of a step (mean flow). Like the published ones, it is made for few steps:

- **enlarger** learns the mean velocity of each step, by flow matching. The path from noise to the clip is bent: by the
  level of the switch-off the clip is there as a whole, under little noise. On the usual straight path the latents are
  two thirds noise then, and a clip of 36 cells would not survive that; a real one has thousands, which say the same
  many times. Sampling does not know: it follows the velocity.
- **unrolled** takes all six steps one after the other, and learns from what they end in; the upsampler learns, too,
  through the noise. For the same reason its latents are stronger than a clip's.
- **refined** does so once more, with other clips.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from demo_base.dit import SIZES as BASE_SIZES
from demo_base.loop import Course, StepResult, train
from demo_base.pairs import Pairs
from demo_base.upsampler import SIZES as UPSAMPLER_SIZES
from hv15.atomic import atomic_path
from hv15.models import Condition, DiT
from hv15.models.dit_files import save_dit
from hv15.models.latents import condition_channels, low_resolution_channels
from hv15.models.super_resolution import NOISE, SUPER_RESOLUTIONS
from hv15.models.upsamplers import LatentUpsampler, Upsampler720
from hv15.models.weights.fp8_writer import Fp8Writer
from hv15.models.weights.writer import write_checkpoint
from hv15.noise.levels import TIMESTEPS, shifted
from hv15.records.metrics import MetricsRecord
from hv15.sample.schedule import sigmas
from hv15.sample.super_resolution import resized, with_noise
from hv15.train.random import chance, generator
from hv15.train.state import locked

KEPT_BLOCKS = (0, 2, 5)
"""The blocks of the base that it begins with."""
SIZES = replace(BASE_SIZES, num_blocks=len(KEPT_BLOCKS), low_resolution=True, meanflow=True)
STEPS, SHIFT = SUPER_RESOLUTIONS["720p"].infer_steps, SUPER_RESOLUTIONS["720p"].flow_shift
KNEE = 2 / 3
"""The noise level from which on a clip is there as a whole: that of the first step without the small clip."""
REST = 0.3
"""How much noise is left there."""
GAIN = 6.0
"""How many times as strong as a clip's the upsampler's latents are made."""


@dataclass(frozen=True)
class EnlargerStage:
    """The settings of one cycle."""

    name: str = "enlarger"
    kind: Literal["flow", "unrolled"] = "flow"
    seed: int = 0
    """Seed of all random draws, and of the pairs."""
    steps: int = 900
    batch: int = 12
    rate: float = 1e-3
    """Peak learning rate of the transformer: linear warm-up over `warmup` steps, then a cosine to zero."""
    upsampler_rate: float = 0.0
    """That of the upsampler; 0: it stays as it is."""
    warmup: int = 50
    i2v_prob: float = 0.2
    """Of a batch."""
    between: float = 0.5
    """Share of the steps that do not begin at a level of six steps, but between two of them."""
    caption_dropout: float = 0.1
    wrong_captions: float = 0.5
    """Of the clips for which captions have no words, how many are shown with the caption of another clip."""
    faults: float = 0.2
    """Largest deviation of the noise in the small latents: samples are not as clean as drawn clips."""
    clips: int = 2048
    """Number of pairs."""
    state_every: int = 50


STAGES = {
    "enlarger": EnlargerStage(),
    "unrolled": EnlargerStage(
        "unrolled", "unrolled", seed=1, steps=1000, batch=8, rate=5e-4, upsampler_rate=5e-4, warmup=20
    ),
    "refined": EnlargerStage(
        "refined", "unrolled", seed=2, steps=1000, batch=8, rate=5e-4, upsampler_rate=5e-4, warmup=20
    ),
}


@dataclass(frozen=True, kw_only=True)
class EnlargerStep(MetricsRecord):
    """A step in the metrics.jsonl of a cycle."""

    kind = "enlarger_step"
    loss: float
    grad_norm: float
    lr: float
    """Of the transformer."""


class Enlarger(nn.Module):
    """The two networks of super resolution."""

    def __init__(self, dit: DiT, upsampler: LatentUpsampler) -> None:
        super().__init__()
        self.dit, self.upsampler = dit, upsampler

    @classmethod
    def new(cls) -> Enlarger:
        """Return both with weights that mean nothing."""
        return cls(DiT(SIZES), Upsampler720(UPSAMPLER_SIZES))

    @classmethod
    def load(cls, path: Path) -> Enlarger:
        """Read both from the file of a cycle."""
        networks = cls.new()
        networks.load_state_dict(load_file(path))
        return networks

    def amplify(self, gain: float) -> None:
        """Make the upsampler's latents so many times as strong, and tell the transformer."""
        channels = SIZES.latent_channels
        with torch.no_grad():
            for parameter in self.upsampler.get_submodule("out_conv").parameters():
                parameter.mul_(gain)
            self.dit.img_in.proj.weight[:, 2 * channels + 1 : 3 * channels + 1] /= (1 - NOISE) * gain


@dataclass(frozen=True)
class PairBatch:
    """What a step is shown."""

    x0: Tensor
    """The large clips' latents [B, C, F', h, w]."""
    noise: Tensor
    low: Tensor
    """The small clips', resized."""
    low_noise: Tensor
    image: Tensor
    """The channels of the first frame [B, C + 1, F', h, w]."""
    condition: Condition


@dataclass(frozen=True)
class Lessons:
    """All that the two networks are shown."""

    pairs: Pairs
    texts: Mapping[str, Tensor]
    """The states of each caption and of "", [L, D]."""
    visions: Tensor
    """SigLIP's states of the first frames, [N, 25, D]."""
    metric: Tensor
    """Of errors in the first frame's cells and in those of later frames, [2, C, C]: see `CellBasis.metric`."""

    def loss(self, networks: Enlarger, stage: EnlargerStage, step: int) -> Tensor:
        """Return the loss of a step."""
        draws = generator(stage.seed, stage.name, step)
        batch = self._batch(stage, step, draws)
        low = with_noise(networks.upsampler(batch.low), batch.low_noise)
        if stage.kind == "unrolled":
            return self.error(unrolled(networks.dit, batch, low) - batch.x0).mean()
        spread = torch.arange(stage.batch) * STEPS // stage.batch  # all levels in each batch, the noisiest first
        offset, moved = torch.rand(2, stage.batch, generator=draws)
        start = 1 - (spread + offset * (moved < stage.between)) / STEPS
        sigma, end = shifted(start, SHIFT), shifted((start - 1 / STEPS).clamp(min=0), SHIFT)
        here, there = (on_path(batch.x0, batch.noise, level) for level in (sigma, end))
        length = (sigma - end).view(-1, 1, 1, 1, 1)
        seen = int((sigma >= NOISE).sum())
        parts = [
            low_resolution_channels(low[:seen], batch.x0[:seen]),
            low_resolution_channels(None, batch.x0[seen:]),
        ]
        x = torch.cat([here, batch.image, torch.cat(parts)], dim=1)
        found = networks.dit(x, TIMESTEPS * sigma, batch.condition, timestep_r=TIMESTEPS * end)
        errors: Tensor = STEPS * self.error(found - (here - there) / length) * length.flatten()
        return errors.mean()

    def error(self, difference: Tensor) -> Tensor:
        """Return the mean squared size of differences of latents [B, C, F', h, w] by the metric, [B]."""
        first, later = difference[:, :, :1], difference[:, :, 1:]
        sums = [
            torch.einsum("bcfhw,cd,bdfhw->b", part, metric, part)
            for part, metric in zip((first, later), self.metric, strict=True)
        ]
        return (sums[0] + sums[1]) / difference[0].numel()

    def _batch(self, stage: EnlargerStage, step: int, draws: torch.Generator) -> PairBatch:
        chosen = torch.randint(len(self.pairs), (stage.batch,), generator=draws)
        captions = [self._caption(number, stage, draws) for number in chosen.tolist()]
        x0, small = self.pairs.large[chosen], self.pairs.small[chosen]
        noise, low_noise = (torch.randn(x0.shape, generator=draws) for _ in range(2))
        amount = stage.faults * torch.rand(stage.batch, 1, 1, 1, 1, generator=draws)
        small = small + amount * torch.randn(small.shape, generator=draws)
        i2v = chance(stage.i2v_prob, stage.seed, f"{stage.name} i2v", step)
        image = condition_channels(x0[:, :, 0] if i2v else None, like=x0)
        condition = self._condition(captions, self.visions[chosen] if i2v else None)
        return PairBatch(x0, noise, resized(small, *x0.shape[3:]), low_noise, image, condition)

    def _caption(self, number: int, stage: EnlargerStage, draws: torch.Generator) -> str:
        """Return the caption with which a clip is shown."""
        caption = self.pairs.captions[number]
        dropped, other = torch.rand(2, generator=draws).tolist()
        if not caption and dropped < stage.wrong_captions:
            return self.pairs.captions[int(other * len(self.pairs))]
        return "" if dropped < stage.caption_dropout else caption

    def _condition(self, captions: list[str], vision: Tensor | None) -> Condition:
        texts = [self.texts[caption] for caption in captions]
        return Condition(
            text=nn.utils.rnn.pad_sequence(texts, batch_first=True),
            text_lengths=[len(text) for text in texts],
            glyphs=torch.zeros(len(texts), 0, SIZES.glyph_dim),
            glyph_lengths=[0] * len(texts),
            vision=vision,
        )


def on_path(x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Return the points at noise levels `sigma` [B] on the path from noise to latents x0, both [B, C, F, H, W].

    Two straight lines: from the noise to x0 + REST * noise at the level KNEE, and from there to x0.
    """
    sigma = sigma.view(-1, 1, 1, 1, 1)
    share = ((1 - sigma) / (1 - KNEE)).clamp(max=1)
    rest = torch.where(sigma > KNEE, 1 - (1 - REST) * share, REST * sigma / KNEE)
    return share * x0 + rest * noise


def unrolled(dit: DiT, batch: PairBatch, low: Tensor) -> Tensor:
    """Return the latents in which the steps of sampling end; gradients go through all of them."""
    x, condition = batch.noise, dit.prepare(batch.condition)
    for level, end in pairwise(sigmas(STEPS, SHIFT).tolist()):
        channels = low_resolution_channels(low if level >= NOISE else None, x)
        times = [torch.full((len(x),), TIMESTEPS * each) for each in (level, end)]
        velocity = dit(torch.cat([x, batch.image, channels], dim=1), times[0], condition, timestep_r=times[1])
        x = x + (end - level) * velocity
    return x


def begun(base: DiT) -> DiT:
    """Return a transformer of super resolution that has the weights of the base, without some of its blocks.

    The latents of the small clip are read as the noisy latents are; their mask and the end of a step are ignored.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dit = DiT(SIZES)
    assert dit.time_r_in is not None
    tensors = {
        f"time_r_in.{name}": torch.zeros_like(value) if name.startswith("mlp.2.") else value
        for name, value in dit.time_r_in.state_dict().items()
    }
    for name, value in base.state_dict().items():
        if name == "img_in.proj.weight":
            latents = value[:, : SIZES.latent_channels]
            tensors[name] = torch.cat([value, latents, torch.zeros_like(value[:, :1])], 1)
        elif not name.startswith("double_blocks."):
            tensors[name] = value
    for number, kept in enumerate(KEPT_BLOCKS):
        for name, value in base.double_blocks[kept].state_dict().items():
            tensors[f"double_blocks.{number}.{name}"] = value
    dit.load_state_dict(tensors)
    return dit.requires_grad_(True)


def train_enlarger(stage: EnlargerStage, networks: Enlarger, lessons: Lessons, folder: Path, *, settings: str) -> Path:
    """Train, or resume a stopped training; return the weights of both, `<folder>/<stage>.safetensors`, fp32.

    Args:
        networks: as they are before the cycle; they are trained in place.
        settings: digest of what they and the lessons depend on.

    Raises:
        UserError: a file cannot be written, or another process runs the same stage.
        SystemExit: code 3 after SIGTERM or Ctrl-C, with the state saved.
    """
    target, work = folder / f"{stage.name}.safetensors", folder / stage.name
    groups: list[dict[str, object]] = [{"params": list(networks.dit.parameters()), "peak": stage.rate}]
    networks.requires_grad_(True)
    networks.upsampler.requires_grad_(stage.upsampler_rate > 0)
    if stage.upsampler_rate:
        groups.append({"params": list(networks.upsampler.parameters()), "peak": stage.upsampler_rate})

    def losses(step: int) -> tuple[Tensor, Tensor]:
        loss = lessons.loss(networks, stage, step)
        return loss, loss.detach()

    with locked(work):
        train(
            networks,
            groups,
            Course(stage.name, stage.steps, stage.rate, stage.warmup, stage.state_every),
            losses,
            work,
            spec=f"{stage} {SIZES} {settings}",
            record=_record,
            note=lambda result: f"loss {result.loss:.3f}",
        )
        with atomic_path(target) as temporary:
            save_file(networks.state_dict(), temporary)
    return target


def _record(step: int, result: StepResult) -> EnlargerStep:
    return EnlargerStep(step=step, loss=result.loss, grad_norm=result.grad_norm, lr=result.lr)


def write_enlarger(source: Path, output: Path) -> None:
    """Write the two networks of a cycle as `sr_dit.safetensors` and `upsampler.safetensors` into a folder.

    The transformer's blocks are written in fp8, as in ComfyUI's file.

    Raises:
        UserError: a file is missing or cannot be written.
    """
    networks = Enlarger.load(source)
    training = json.dumps([asdict(stage) for stage in STAGES.values()])
    save_dit(
        networks.dit,
        output / "sr_dit.safetensors",
        layout="comfyui",
        dtype=torch.bfloat16,
        metadata={"training": training},
        fp8=Fp8Writer(),
    )
    tensors = {name: value.half() for name, value in networks.upsampler.state_dict().items()}
    write_checkpoint(output / "upsampler.safetensors", tensors, tensors.__getitem__, {"format": "pt"})
