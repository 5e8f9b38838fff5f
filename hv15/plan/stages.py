"""Each stage of a project on a device: memory by part, what must be free for it, time."""

from __future__ import annotations

from math import prod

from hv15.config import SampleSettings, Settings
from hv15.memory import WEIGHTS
from hv15.out_of_memory import StageName
from hv15.plan.cost import Cost
from hv15.plan.devices import CONVOLUTIONS, EXCHANGE, PROCESS, Device
from hv15.plan.model_sizes import ModelSizes
from hv15.plan.stage_costs import StageCosts, largest_of
from hv15.plan.stage_plan import StagePlan
from hv15.plan.stage_settings import (
    MEASURED_AS,
    MEMORY_SETTINGS,
    ROLES_OF_STAGE,
    SECTION,
    STAGES,
    WITH_TRANSFORMER,
    WITH_VAE,
    gpus_of,
    section_of,
)
from hv15.plan.times import Load, load_seconds, unit_seconds
from hv15.plan.work import Work
from hv15.plan.workload import ClipBatch, Workload, workload
from hv15.project import Project
from hv15.records.estimate import Basis, Seconds

COMPRESSION = {"fp8": 2, "fp8_fast": 2, "int8": 2, "nf4": 4}
"""How many times smaller a transformer's weights are than in bfloat16, in which they are published."""


class StagePlanner:
    """Plans the stages of a project on a device, also with other settings, and remembers the results."""

    def __init__(self, project: Project, device: Device) -> None:
        self.project, self.device = project, device
        self.sizes = ModelSizes(project)
        self.work: Workload = workload(project)
        self._costs = StageCosts(self.sizes, self.work, device)

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
        cost = self._costs.cost(name, settings, clips or self.work.batch)
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
            disk=self._costs.waiting(name, settings),
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
        largest = prod(largest_of(self.work.videos).latent)
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
            dtype = self._costs.dtype(section.dtype)
        else:
            dtype = self._costs.encoder_dtype(
                section.dtype_of_vae if isinstance(section, SampleSettings) else section.dtype
            )
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
