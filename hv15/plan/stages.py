"""Each stage of a project on a device: memory by part, what must be free for it, time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from math import prod
from typing import TYPE_CHECKING, Literal, get_args

from hv15.choices import Role
from hv15.config import CacheSettings, SampleSettings, Settings, TrainSettings
from hv15.memory import WEIGHTS
from hv15.out_of_memory import StageName
from hv15.plan.cost import Cost
from hv15.plan.devices import CONVOLUTIONS, EXCHANGE, PROCESS, Device
from hv15.plan.model_sizes import ModelSizes
from hv15.plan.stage_plan import StagePlan
from hv15.plan.times import Load, load_seconds, unit_seconds
from hv15.plan.work import Work
from hv15.plan.workload import ClipBatch, Video, Workload, workload
from hv15.precision import named_dtype
from hv15.project import Project
from hv15.records.estimate import Basis, Seconds

if TYPE_CHECKING:
    import torch

    from hv15.models import VAE
    from hv15.models.vae_decoding import Tiling
    from hv15.plan.transformer import Known

STAGES: tuple[StageName, ...] = get_args(StageName)
SECTION: dict[StageName, Literal["cache", "train", "sample"]] = {
    "encode latents": "cache",
    "encode texts": "cache",
    "condition": "sample",
    "train": "train",
    "denoise": "sample",
    "decode": "sample",
    "upsample": "sample",
    "decode large": "sample",
}
"""The section with a stage's settings."""
MEMORY_SETTINGS: dict[StageName, tuple[str, ...]] = {
    "encode latents": ("vae_sample_size", "vae_enable_patch_conv", "latent_batch", "dtype"),
    "encode texts": ("fp8_vl", "text_encoder_cpu", "text_batch", "dtype"),
    "condition": ("vae_enable_patch_conv", "dtype", "vae_dtype"),
    "train": ("gradient_checkpointing", "gradient_checkpointing_cpu_offload", "blocks_to_swap", "quantize",
              "split_attn", "context_parallel", "num_processes", "shard_base", "network_dim", "optimizer_type",
              "dtype"),
    "denoise": ("blocks_to_swap", "quantize", "split_attn", "context_parallel", "guidance_batch", "dtype"),
    "decode": ("vae_sample_size", "vae_seamless_tiles", "vae_enable_patch_conv", "dtype", "vae_dtype"),
    "upsample": ("blocks_to_swap", "quantize", "split_attn", "context_parallel", "dtype"),
    "decode large": ("vae_sample_size", "vae_seamless_tiles", "vae_enable_patch_conv", "dtype", "vae_dtype"),
}  # fmt: skip
"""The settings of a stage's section that determine its memory."""
ROLES_OF_STAGE: dict[StageName, tuple[Role, ...]] = {
    "encode latents": ("vae", "image_encoder"),
    "encode texts": ("text_encoder", "glyph_encoder"),
    "condition": ("vae", "image_encoder"),
    "train": ("dit",),
    "denoise": ("dit",),
    "decode": ("vae",),
    "upsample": ("sr_dit", "upsampler"),
    "decode large": ("vae",),
}
"""The models that a stage loads, as far as its task has them."""
WITH_VAE: tuple[StageName, ...] = ("encode latents", "condition", "decode", "decode large")
"""The stages that run the VAE."""
WITH_TRANSFORMER: tuple[StageName, ...] = ("train", "denoise", "upsample")
"""The stages that run a transformer."""
MEASURED_AS: dict[StageName, StageName] = {"upsample": "denoise", "decode large": "decode"}
"""The stages of super resolution, which a self-test does not run -> those that do the same with smaller videos."""
COMPRESSION = {"fp8": 2, "fp8_fast": 2, "int8": 2, "nf4": 4}
"""How many times smaller a transformer's weights are than in bfloat16, in which they are published."""


class StagePlanner:
    """Plans the stages of a project on a device, also with other settings, and remembers the results."""

    def __init__(self, project: Project, device: Device) -> None:
        self.project, self.device = project, device
        self.sizes = ModelSizes(project)
        self.work: Workload = workload(project)
        self._costs: dict[str, Cost] = {}
        self._resident: Known = {}

    @property
    def names(self) -> list[StageName]:
        """The stages that the project has."""
        left_out: set[str] = set() if self.work.task == "i2v" else {"condition"}
        if not self.work.videos:
            left_out |= {"condition", "denoise", "decode"}
        if not self.work.enlarged:
            left_out |= {"upsample", "decode large"}
        if not self.project.settings.datasets:
            left_out |= {"encode latents", "train"}
        return [name for name in STAGES if name not in left_out]

    def stage(self, name: StageName, settings: Settings | None = None, clips: ClipBatch | None = None) -> StagePlan:
        """Plan one stage.

        Args:
            settings: instead of the project's own.
            clips: the largest batch instead of the project's own.
        """
        settings = settings or self.project.settings
        cost = self._cost(name, settings, clips or self.work.batch)
        on_cpu = name == "encode texts" and settings.cache.text_encoder_cpu and self.device.gpu
        needed = 0 if on_cpu else self._needed(name, cost, gpus_of(name, settings))
        each, unit, count = self._time(name, settings, cost)
        timed = each is not None and not on_cpu
        section = section_of(name, settings)
        return StagePlan(
            name=name,
            parts={} if on_cpu else cost.parts,
            peak=0 if on_cpu else cost.peak,
            needed=needed,
            fits=needed <= self.device.memory,
            host=0 if not self.device.gpu else cost.host + (cost.peak if on_cpu else 0),
            disk=self._waiting(name, settings),
            flops=cost.flops,
            unit=unit,
            count=count,
            each=each if timed else None,
            loads=self._loads(name),
            loading=load_seconds(self._bytes_read(name, settings, cost), self.device.rates) if timed else None,
            validation=self._validation_time(settings, cost) if timed and name == "train" else None,
            previews=self._preview_time(settings) if timed and name == "train" else None,
            memory_basis=self._memory_basis(name),
            settings={field: getattr(section, field) for field in MEMORY_SETTINGS[name]},
        )

    def _waiting(self, name: StageName, settings: Settings) -> int:
        """Bytes of tiles that wait on the disk while the largest video is decoded."""
        from hv15.plan.decoding import waiting_bytes

        if name not in ("decode", "decode large"):
            return 0
        video = _largest(self.work.videos if name == "decode" else self.work.enlarged)
        return waiting_bytes(self._sampling_vae(settings), video.latent, _tiling(settings.sample))

    def _needed(self, name: StageName, cost: Cost, ranks: int) -> int:
        """Bytes that the device must have free; on the CPU, all ranks' together.

        Args:
            ranks: how many compute each video together.
        """
        if not self.device.gpu:
            return (cost.peak + PROCESS) * ranks + cost.host  # it is all the same memory
        convolutions = CONVOLUTIONS if name in WITH_VAE else 0
        exchange = EXCHANGE if ranks > 1 else 0
        fragments = self.device.fragments(cost.peak, cost.parts.get(WEIGHTS, 0))
        return cost.peak + self.device.context + convolutions + exchange + fragments

    def _memory_basis(self, name: StageName) -> Basis:
        """Whether the allowances are measured or assumed."""
        rates = self.device.rates
        if rates is None or not self.device.gpu:
            return Basis.ASSUMED
        assumed = [False] if name in WITH_VAE else []
        return Basis.of([rates.context is not None, rates.fragments is not None, *assumed])

    def _time(self, name: StageName, settings: Settings, cost: Cost) -> tuple[Seconds | None, str, int]:
        """The time of a unit, the unit, and how many of them."""
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
        elif name == "upsample":
            unit, count = "step", sum(video.steps for video in work.enlarged)
        elif name == "decode large":
            count = len(work.enlarged)
        share = work.mean_tokens / work.batch.tokens if name in ("train", "encode latents") else 1.0
        offloads = name == "train" and settings.train.gradient_checkpointing_cpu_offload
        load = Load(
            {
                kind: Work(passes * of.launches, round(passes * share * of.moved), round(passes * share * of.flops))
                for kind, of in cost.work.items()
            },
            passes * cost.copied,
            ("to_device", "to_host") if offloads else ("to_device",),
        )
        measured = MEASURED_AS.get(name, name)
        return unit_seconds(load, self.device, measured, self._number_format(name, settings)), unit, count

    def _validation_time(self, settings: Settings, cost: Cost) -> Seconds | None:
        """The time of all measurements of a training: forward passes, each of one clip."""
        measured = self.work.validation
        if measured is None:
            return None
        share = measured.mean_tokens / measured.largest.tokens
        work = {
            kind: Work(of.launches, round(share * of.moved), round(share * of.flops))
            for kind, of in cost.validation.items()
        }
        once = unit_seconds(
            Load(work, cost.copied // 2), self.device, "train", self._number_format("train", settings)
        )  # blocks that wait in the machine's memory come once, in training twice
        passes = measured.passes / settings.train.num_processes
        return once and Seconds(once.least * passes, once.most * passes, once.basis)

    def _preview_time(self, settings: Settings) -> Seconds | None:
        """The time of all previews of a training, by that of the final samples: of each, by its tokens."""
        asked = self.work.previews
        if asked is None:
            return None
        step, decoding = (self.stage(name, settings).each for name in ("denoise", "decode"))
        if step is None or decoding is None:
            return None
        largest = prod(_largest(self.work.videos).latent)
        shares = [(video.steps, prod(video.latent) / largest) for video in asked.videos]
        steps, videos = sum(count * share for count, share in shares), sum(share for _, share in shares)
        least, most = (
            asked.times * (getattr(step, end) * steps + getattr(decoding, end) * videos) for end in ("least", "most")
        )
        return Seconds(least, most, Basis.joint(step.basis, decoding.basis))

    def _number_format(self, name: StageName, settings: Settings) -> str:
        """The number format of a stage's products, as rates of products are called."""
        section = section_of(name, settings)
        products = self.device.rates.products if self.device.rates else {}
        if "fp8" in products and getattr(section, "quantize", "none") == "fp8_fast":
            return "fp8"
        if name in WITH_TRANSFORMER:
            dtype = self._dtype(section.dtype)
        else:
            dtype = self._encoder_dtype(section.dtype_of_vae if isinstance(section, SampleSettings) else section.dtype)
        return "float32" if dtype.itemsize == 4 else "bfloat16"

    def _loads(self, name: StageName) -> int:
        """How many times the stage loads its models, one after the other: on each device once for all samples."""
        return self.project.settings.cache.shards if SECTION[name] == "cache" else 1

    def _bytes_read(self, name: StageName, settings: Settings, cost: Cost) -> int:
        """Bytes of the files that a stage's models are loaded from; as published where they are not there yet."""
        roles = [role for role in ROLES_OF_STAGE[name] if role in self.project.settings.roles]
        files = [self.sizes.file_bytes(role) for role in roles]
        if all(files):
            return sum(files)
        section = section_of(name, settings)
        stored = getattr(section, "quantize", "none")
        offloaded = getattr(section, "gradient_checkpointing_cpu_offload", False)
        gpus = settings.train.gpus_per_machine if name == "train" else gpus_of(name, settings)
        waiting = 0 if offloaded else cost.host // gpus  # blocks, in the machine's memory
        weights = cost.parts.get(WEIGHTS, 0) + waiting
        return weights * COMPRESSION.get(stored, 1)

    def _cost(self, name: StageName, settings: Settings, clips: ClipBatch) -> Cost:
        section = section_of(name, settings)
        key = json.dumps([name, section.model_dump(mode="json"), asdict(clips)], sort_keys=True, default=str)
        if key not in self._costs:
            self._costs[key] = self._run(name, settings, clips)
        return self._costs[key]

    def _run(self, name: StageName, settings: Settings, clips: ClipBatch) -> Cost:
        """Run the stage without data."""
        match name:
            case "encode latents":
                return self._encode_latents(settings, clips)
            case "encode texts":
                return self._encode_texts(settings)
            case "train":
                return self._train(settings, clips)
            case "denoise":
                return self._denoise(settings)
            case "condition":
                return self._encode_first_image(settings)
            case "decode":
                return self._decode(settings, _largest(self.work.videos))
            case "upsample":
                return self._enlarge(settings)
            case "decode large":
                return self._decode(settings, _largest(self.work.enlarged))

    def _encode_latents(self, settings: Settings, clips: ClipBatch) -> Cost:
        from hv15.plan.encoders import encoding, make_image_encoder, make_vae

        cache = settings.cache
        dtype = self._encoder_dtype(cache.dtype)
        vae = make_vae(self.sizes.vae, dtype, patch_conv=cache.vae_enable_patch_conv)
        vision = make_image_encoder(self.sizes.image_encoder, dtype) if self.work.task == "i2v" else None
        batch = ClipBatch(min(cache.latent_batch, self.work.clips), clips.frames, clips.height, clips.width)
        return encoding(vae, vision, batch, tile_size=cache.vae_sample_size, overlap=cache.vae_tile_overlap)

    def _encode_texts(self, settings: Settings) -> Cost:
        from hv15.plan.encoders import text_encoding

        cache = settings.cache
        dtype = self._encoder_dtype(cache.dtype, cpu=cache.text_encoder_cpu)
        batch = min(cache.text_batch, max(self.work.texts, 1))
        return text_encoding(self.sizes.text_encoder, dtype, self.work.text_tokens, batch, quantize=cache.fp8_vl)

    def _train(self, settings: Settings, clips: ClipBatch) -> Cost:
        from hv15.plan.metered_steps import PassSize
        from hv15.plan.transformer import training

        work, i2v = self.work, self.work.task == "i2v"
        size = PassSize(clips.samples, clips.latent, work.text_tokens, i2v, work.prior_share)
        measured = None
        if self.work.validation is not None:
            largest = self.work.validation.largest
            if clips != self.work.batch:  # smaller clips are smaller there, too
                largest = min(largest, replace(clips, samples=1), key=lambda clip: clip.tokens)
            measured = replace(size, samples=1, latent=largest.latent, prior_share=0.0)
        dtype = self._dtype(settings.train.dtype)
        return training(
            settings, self.sizes.dit, dtype, size, validation=measured, gpu=self.device.gpu, known=self._resident
        )

    def _denoise(self, settings: Settings) -> Cost:
        from hv15.plan.metered_steps import PassSize
        from hv15.plan.transformer import denoising
        from hv15.sample.guidance_batch import batches

        latent = _largest(self.work.videos).latent
        return denoising(
            settings,
            self.sizes.dit,
            self._dtype(settings.sample.dtype),
            PassSize(1, latent, self.work.text_tokens, self.work.task == "i2v"),
            guided=any(video.guided for video in self.work.videos),
            batch_cfg=batches(settings.sample.guidance_batch, latent, gpu=self.device.gpu),
            gpu=self.device.gpu,
            known=self._resident,
        )

    def _encode_first_image(self, settings: Settings) -> Cost:
        from hv15.plan.encoders import encoding

        video = _largest((*self.work.videos, *self.work.enlarged))
        return encoding(self._sampling_vae(settings), None, ClipBatch(1, 1, video.height, video.width))

    def _enlarge(self, settings: Settings) -> Cost:
        from hv15.plan.enlarging import enlarging
        from hv15.plan.metered_steps import PassSize

        latent = _largest(self.work.enlarged).latent
        return enlarging(
            settings,
            self.sizes.sr_dit,
            self.sizes.upsampler,
            self._dtype(settings.sample.dtype),
            PassSize(1, latent, self.work.text_tokens, self.work.task == "i2v"),
            with_lora=settings.sample.sr_with_loras and bool(settings.datasets),
            gpu=self.device.gpu,
            known=self._resident,
        )

    def _decode(self, settings: Settings, video: Video) -> Cost:
        from hv15.plan.decoding import decoding

        return decoding(self._sampling_vae(settings), video.latent, _tiling(settings.sample))

    def _sampling_vae(self, settings: Settings) -> VAE:
        from hv15.plan.encoders import make_vae

        dtype, patch_conv = self._encoder_dtype(settings.sample.dtype_of_vae), settings.sample.vae_enable_patch_conv
        return make_vae(self.sizes.vae, dtype, patch_conv=patch_conv)

    def _dtype(self, name: str) -> torch.dtype:
        import torch

        if name != "auto":
            return named_dtype(name)
        return torch.bfloat16 if self.device.gpu and self.device.bfloat16 else torch.float32

    def _encoder_dtype(self, name: str, *, cpu: bool = False) -> torch.dtype:
        import torch

        if name != "auto":
            return named_dtype(name)
        return torch.float16 if self.device.gpu and not cpu else torch.float32


def _tiling(sample: SampleSettings) -> Tiling:
    from hv15.models.vae_decoding import Tiling

    return Tiling(sample.vae_sample_size, sample.vae_tile_overlap, sample.vae_seamless_tiles)


def _largest(videos: Sequence[Video]) -> Video:
    return max(videos, key=lambda video: video.frames * video.height * video.width)


def section_of(name: StageName, settings: Settings) -> CacheSettings | TrainSettings | SampleSettings:
    """Return the section with a stage's settings."""
    section: CacheSettings | TrainSettings | SampleSettings = getattr(settings, SECTION[name])
    return section


def gpus_of(name: StageName, settings: Settings) -> int:
    """Return how many GPUs work on a stage together; only the transformer's stages are divided."""
    match name:
        case "train":
            return settings.train.gpus
        case "denoise" | "upsample":
            return settings.sample.context_parallel
        case _:
            return 1
