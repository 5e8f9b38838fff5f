"""Trains the networks of the demo's super resolution on pairs of clips, by flow matching, in three cycles.

The transformer begins as the demo's base. It is shown what `hv15 upsample` shows it: latents from the upsampler, noised
once, above the noise level at which they are switched off, nothing of them below, and for some clips the large first
frame (i2v).

- **enlarger** learns the size: a shape has more cells than in the base's clips.
- **together** trains the upsampler as well, through the noise, so its latents become stronger than a clip's: the noise
  would drown the 16 cells of a small clip, where a real one has thousands, which say the same many times.
- **knee** bends the path from noise to the clip. On the usual straight one, latents at the level of the switch-off are
  two thirds noise, so a toy forgets most of what it saw in the small clip. On this one the whole clip is there by then:
  x = a * x0 + sigma * noise, where a grows evenly to 1 from sigma 1 to 2/3, at which a step of the published schedules
  begins, and stays 1. Sampling does not know: it follows the velocity, noise + da/dsigma * x0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

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
from hv15.sample.super_resolution import resized, with_noise
from hv15.train.random import chance, generator
from hv15.train.state import locked

KEPT_BLOCKS = (0, 1, 2, 4, 5)
"""The blocks of the base that it begins with."""
SIZES = replace(BASE_SIZES, num_blocks=len(KEPT_BLOCKS), low_resolution=True)
SHIFT = SUPER_RESOLUTIONS["720p"].flow_shift


@dataclass(frozen=True)
class EnlargerStage:
    """The settings of one cycle."""

    name: str = "enlarger"
    seed: int = 0
    """Seed of all random draws, and of the pairs."""
    steps: int = 1400
    batch: int = 16
    rate: float = 8e-4
    """Peak learning rate of the transformer: linear warm-up over `warmup` steps, then a cosine to zero."""
    upsampler_rate: float = 0.0
    """That of the upsampler; 0: it stays as it is."""
    gain: float = 1.0
    """How many times as strong the upsampler's latents are made before the cycle."""
    knee: float = 0.0
    """The noise level from which on a clip is there as a whole; 0: the path is straight."""
    warmup: int = 50
    i2v_prob: float = 0.2
    """Of a batch."""
    least_level: float = 1 / 12
    """Of the unshifted noise levels; sampling in six steps uses none below 1/6."""
    caption_dropout: float = 0.1
    wrong_captions: float = 0.0
    """Of the clips for which captions have no words, how many are shown with the caption of another clip."""
    clips: int = 3072
    """Number of pairs."""
    state_every: int = 100


STAGES = {
    "enlarger": EnlargerStage(),
    "together": EnlargerStage(
        "together", seed=1, rate=6e-4, upsampler_rate=5e-4, gain=4.0, warmup=40, wrong_captions=0.5
    ),
    "knee": EnlargerStage(
        "knee", seed=2, steps=1000, rate=6e-4, upsampler_rate=3e-4, knee=2 / 3, warmup=40, wrong_captions=0.5
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
        """Make the upsampler's latents so many times as strong. The transformer is told by half."""
        channels = SIZES.latent_channels
        with torch.no_grad():
            for parameter in self.upsampler.get_submodule("out_conv").parameters():
                parameter.mul_(gain)
            self.dit.img_in.proj.weight[:, 2 * channels + 1 : 3 * channels + 1] /= gain**0.5


@dataclass(frozen=True)
class Lessons:
    """All that the two networks are shown."""

    pairs: Pairs
    texts: Mapping[str, Tensor]
    """The states of each caption and of "", [L, D]."""
    visions: Tensor
    """SigLIP's states of the first frames, [N, 25, D]."""

    def error(self, networks: Enlarger, stage: EnlargerStage, step: int) -> Tensor:
        """Return the mean squared error of the velocities in a step's batch."""
        draws, count, pairs = generator(stage.seed, stage.name, step), stage.batch, self.pairs
        chosen = torch.randint(len(pairs), (count,), generator=draws)
        captions = [self._caption(number, stage, draws) for number in chosen.tolist()]
        # evenly spread, so that each batch has all levels, the noisiest first
        even = (torch.arange(count) + torch.rand(count, generator=draws)) / count
        sigma = shifted(1 - (1 - stage.least_level) * even, SHIFT)
        x0 = pairs.large[chosen]
        noise, low_noise = (torch.randn(x0.shape, generator=draws) for _ in range(2))
        seen = int((sigma >= NOISE).sum())
        low = networks.upsampler(resized(pairs.small[chosen[:seen]], *x0.shape[3:]))
        parts = [
            low_resolution_channels(with_noise(low, low_noise[:seen]), x0[:seen]),
            low_resolution_channels(None, x0[seen:]),
        ]
        i2v = chance(stage.i2v_prob, stage.seed, f"{stage.name} i2v", step)
        image = condition_channels(x0[:, :, 0] if i2v else None, like=x0)
        noisy, velocity = on_path(x0, noise, sigma, stage.knee)
        x = torch.cat([noisy, image, torch.cat(parts)], dim=1)
        condition = self._condition(captions, self.visions[chosen] if i2v else None)
        found = networks.dit(x, TIMESTEPS * sigma, condition)
        return (found - velocity).square().mean()

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


def on_path(x0: Tensor, noise: Tensor, sigma: Tensor, knee: float) -> tuple[Tensor, Tensor]:
    """Return the point at `sigma` [B] on the path from noise to latents x0, both [B, C, F, H, W], and its velocity."""
    sigma = sigma.view(-1, 1, 1, 1, 1)
    share = ((1 - sigma) / (1 - knee)).clamp(max=1)
    growing = (sigma > knee + 1e-6).float()
    return share * x0 + sigma * noise, noise - growing / (1 - knee) * x0


def begun(base: DiT) -> DiT:
    """Return a transformer of super resolution that has the weights of the base, without some of its blocks.

    The latents of the small clip are read as the noisy latents are, and their mask is ignored.
    """
    with torch.device("meta"):
        dit = DiT(SIZES)
    tensors = dict[str, Tensor]()
    for name, value in base.state_dict().items():
        if name == "img_in.proj.weight":
            latents = value[:, : SIZES.latent_channels]
            tensors[name] = torch.cat([value, latents, torch.zeros_like(value[:, :1])], 1)
        elif not name.startswith("double_blocks."):
            tensors[name] = value.clone()
    for number, kept in enumerate(KEPT_BLOCKS):
        for name, value in base.double_blocks[kept].state_dict().items():
            tensors[f"double_blocks.{number}.{name}"] = value.clone()
    dit.load_state_dict(tensors, assign=True)
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
    networks.upsampler.requires_grad_(stage.upsampler_rate > 0)
    if stage.upsampler_rate:
        groups.append({"params": list(networks.upsampler.parameters()), "peak": stage.upsampler_rate})

    def losses(step: int) -> tuple[Tensor, Tensor]:
        error = lessons.error(networks, stage, step)
        return error, error.detach()

    networks.amplify(stage.gain)
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
