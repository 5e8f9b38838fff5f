"""Each stage of a project on a device: memory by part, what must be free for it, time; and the advice that follows."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from hv15.config import Settings
from hv15.demo.layout import BASE, DEMO_FILES
from hv15.errors import UserError
from hv15.out_of_memory import StageName as Name
from hv15.plan.devices import BUS, CONTEXT, CONVOLUTIONS, FRAGMENTS, PROCESS, UTILISATION, Device
from hv15.plan.measured import Measured
from hv15.plan.workload import Workload, workload
from hv15.project import Project

if TYPE_CHECKING:
    import torch

STAGES: tuple[Name, ...] = get_args(Name)
SECTION: dict[Name, str] = {"encode latents": "cache", "encode texts": "cache", "train": "train"}
"""Where a stage's settings stand; the others are in `sample`."""


@dataclass(frozen=True)
class Stage:
    """One stage as planned. All sizes in bytes."""

    name: Name
    parts: dict[str, int]
    """At the peak."""
    peak: int
    """Storages of tensors, to the byte."""
    needed: int
    """With the allowances for the driver, the allocator and the kernels' workspaces."""
    fits: bool
    host: int
    """Of the machine's memory, beside the process itself."""
    flops: int
    """Of one unit."""
    unit: str
    count: int
    seconds: float | None
    """Of one unit; an estimate."""
    settings: dict[str, Any]
    """Those that decide about memory."""

    @property
    def total_seconds(self) -> float | None:
        return None if self.seconds is None else self.seconds * self.count


class Planner:
    """Plans the stages of a project on a device, also with other settings; what was planned once is kept."""

    def __init__(self, project: Project, device: Device) -> None:
        self.project, self.device = project, device
        self.work: Workload = workload(project)
        self._measured: dict[str, Measured] = {}
        self._sizes: dict[str, tuple[Any, bool]] = {}

    @property
    def names(self) -> list[Name]:
        """The stages that the project has."""
        left_out: set[str] = set() if self.work.task == "i2v" else {"condition"}
        if not self.work.videos:
            left_out |= {"condition", "denoise", "decode"}
        return [name for name in STAGES if name not in left_out]

    @property
    def blocks(self) -> int:
        """Of the transformer."""
        count: int = self._size("dit").num_blocks
        return count

    @property
    def assumed(self) -> list[str]:
        """Models that are not there, or cannot be read: they were planned as the published ones."""
        return [role for role, (_, found) in self._sizes.items() if not found]

    def stage(self, name: Name, settings: Settings | None = None, clips: Any = None) -> Stage:
        """Plan one stage.

        Args:
            settings: instead of the project's own.
            clips: the largest batch instead of the project's own.
        """
        settings = settings or self.project.settings
        measured = self._measure(name, settings, clips or self.work.batch)
        on_cpu = name == "encode texts" and settings.cache.text_encoder_cpu and self.device.gpu
        peak = 0 if on_cpu else measured.peak
        needed = 0 if on_cpu else self._needed(name, measured)
        seconds, unit, count = self._time(name, settings, measured)
        relevant = {field: getattr(getattr(settings, SECTION.get(name, "sample")), field) for field in FIELDS[name]}
        return Stage(
            name=name,
            parts={} if on_cpu else measured.parts,
            peak=peak,
            needed=needed,
            fits=needed <= self.device.memory,
            host=measured.host + (measured.peak if on_cpu else 0),
            flops=measured.flops,
            unit=unit,
            count=count,
            seconds=None if on_cpu else seconds,
            settings=relevant,
        )

    def _needed(self, name: Name, measured: Measured) -> int:
        if not self.device.gpu:
            return measured.peak + PROCESS
        moving = measured.peak - measured.parts.get("weights", 0)
        convolutions = CONVOLUTIONS if name in ("encode latents", "condition", "decode") else 0
        return measured.peak + CONTEXT + convolutions + int(FRAGMENTS * moving)

    def _time(self, name: Name, settings: Settings, measured: Measured) -> tuple[float | None, str, int]:
        work, passes = self.work, 1
        unit, count = "video", len(work.videos)
        if name == "encode latents":
            unit, count = "batch", -(-work.clips // settings.cache.latent_batch)
        elif name == "encode texts":
            unit, count = "batch", -(-work.texts // settings.cache.text_batch)
        elif name == "train":
            unit, count, passes = "step", work.steps, settings.train.gradient_accumulation_steps
        elif name == "denoise":
            unit, count = "step", sum(video.steps for video in work.videos)
        if self.device.tflops is None:
            return None, unit, count
        share = work.mean_tokens / work.batch.tokens if name in ("train", "encode latents") else 1.0
        arithmetic = measured.flops * share * passes / (self.device.tflops * 1e12 * UTILISATION.get(name, 0.4))
        directions = 2 if name == "train" else 1
        return max(arithmetic, directions * passes * measured.copied / BUS), unit, count

    def _measure(self, name: Name, settings: Settings, clips: Any) -> Measured:
        section = getattr(settings, SECTION.get(name, "sample"))
        key = json.dumps([name, section.model_dump(mode="json"), asdict(clips)], sort_keys=True, default=str)
        if key not in self._measured:
            self._measured[key] = self._run(name, settings, clips)
        return self._measured[key]

    def _run(self, name: Name, settings: Settings, clips: Any) -> Measured:
        """Run the stage without data."""
        if name in ("train", "denoise"):
            return self._transformer(name, settings, clips)
        from hv15.plan import encoders
        from hv15.plan.workload import Clips

        cache, sample, i2v = settings.cache, settings.sample, self.work.task == "i2v"
        section = cache if name in ("encode latents", "encode texts") else sample
        dtype = self._encoder_dtype(section.dtype, cpu=name == "encode texts" and cache.text_encoder_cpu)
        if name == "encode texts":
            config = self._size("text_encoder")
            tokens, batch = self.work.text_tokens, min(cache.text_batch, max(self.work.texts, 1))
            return encoders.text_encoding(config, dtype, tokens, batch, quantize=cache.fp8_vl)
        patch_conv = cache.vae_enable_patch_conv if name == "encode latents" else sample.vae_enable_patch_conv
        vae = encoders.make_vae(self._size("vae"), dtype, patch_conv=patch_conv)
        if name == "encode latents":
            vision = encoders.make_image_encoder(self._size("image_encoder"), dtype) if i2v else None
            batch_of = Clips(min(cache.latent_batch, self.work.clips), clips.frames, clips.height, clips.width)
            tile, overlap = cache.vae_sample_size, cache.vae_tile_overlap
            return encoders.encoding(vae, vision, batch_of, tile_size=tile, overlap=overlap)
        largest = max(self.work.videos, key=lambda video: video.frames * video.height * video.width)
        if name == "condition":
            return encoders.encoding(vae, None, Clips(1, 1, largest.height, largest.width))
        return encoders.decoding(vae, largest.latent, tile_size=sample.vae_sample_size, overlap=sample.vae_tile_overlap)

    def _transformer(self, name: Name, settings: Settings, clips: Any) -> Measured:
        from hv15.plan.transformer import Work, denoising, training
        from hv15.sample.sampling import BATCHED_TOKENS

        config, i2v = self._size("dit"), self.work.task == "i2v"
        if name == "train":
            work = Work(clips.samples, clips.latent, self.work.text_tokens, i2v)
            return training(settings, config, self._dtype(settings.train.dtype), work, gpu=self.device.gpu)
        largest = max(self.work.videos, key=lambda video: video.frames * video.height * video.width)
        frames, rows, columns = largest.latent
        return denoising(
            settings,
            config,
            self._dtype(settings.sample.dtype),
            Work(1, largest.latent, self.work.text_tokens, i2v),
            guided=any(video.guided for video in self.work.videos),
            batch_cfg=self.device.gpu and frames * rows * columns <= BATCHED_TOKENS,
            gpu=self.device.gpu,
        )

    def _dtype(self, name: str) -> torch.dtype:
        import torch

        if name != "auto":
            return getattr(torch, name)
        return torch.bfloat16 if self.device.gpu and self.device.bfloat16 else torch.float32

    def _encoder_dtype(self, name: str, *, cpu: bool) -> torch.dtype:
        import torch

        if name != "auto":
            return getattr(torch, name)
        return torch.float16 if self.device.gpu and not cpu else torch.float32

    def _size(self, role: str) -> Any:
        """A model's sizes, from its file, or those of the published model while it is not there."""
        if role not in self._sizes:
            self._sizes[role] = _read_size(self.project, role)
        return self._sizes[role][0]


def _read_size(project: Project, role: str) -> tuple[Any, bool]:
    """A model's sizes, and whether its file told them."""
    from hv15.models import DiTConfig, VAEConfig, load_vae
    from hv15.models.dit_files import read_config
    from hv15.models.text import TextConfig, read_text_config
    from hv15.models.vision import VisionConfig, read_vision_config
    from hv15.models.weights.checkpoint import open_checkpoint

    official: dict[str, Any] = {
        "dit": DiTConfig, "vae": VAEConfig, "text_encoder": TextConfig, "image_encoder": VisionConfig
    }  # fmt: skip
    try:
        path = project.models.path(role)  # type: ignore[arg-type]
        if project.settings.models.source == "demo" and not path.exists():
            path = BASE / Path(DEMO_FILES[role]).relative_to("demo")  # what the workflow will copy
        if role == "vae":
            return load_vae(path, device="meta").config, True
        checkpoint = open_checkpoint(path)
        if role == "dit":
            return read_config(checkpoint), True
        return (read_text_config if role == "text_encoder" else read_vision_config)(checkpoint)[0], True
    except UserError:
        return official[role](), False


FIELDS: dict[Name, tuple[str, ...]] = {
    "encode latents": ("vae_sample_size", "vae_enable_patch_conv", "latent_batch", "dtype"),
    "encode texts": ("fp8_vl", "text_encoder_cpu", "text_batch", "dtype"),
    "condition": ("vae_enable_patch_conv", "dtype"),
    "train": ("gradient_checkpointing", "gradient_checkpointing_cpu_offload", "blocks_to_swap", "quantize",
              "split_attn", "network_dim", "optimizer_type", "dtype"),
    "denoise": ("blocks_to_swap", "quantize", "split_attn", "dtype"),
    "decode": ("vae_sample_size", "vae_enable_patch_conv", "dtype"),
}  # fmt: skip
