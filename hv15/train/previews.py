"""Samples while training: the final samples' own denoising, with the LoRA as it is after some step.

They are in `<training>/previews/NAME.step000250.mp4`. First all prompts are denoised, then the transformer makes room
on the GPU and the VAE decodes them. Nothing here draws from a random state or changes a weight, so that a training
with previews gives the same LoRA.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from hv15.cache.batches import Readable
from hv15.config.train import TrainSettings
from hv15.data.captions import caption_key
from hv15.data.survey import counted
from hv15.errors import UserError
from hv15.lora import LoRANetwork
from hv15.lora.applied import AppliedLoRAs
from hv15.lora.changes import read_changes
from hv15.lora.files import read_lora
from hv15.lora.reach import EVERYWHERE, Reach
from hv15.lora.weighted import naming
from hv15.models.latents import unscale
from hv15.models.weights.parked import parked
from hv15.models.weights.swap import BlockSwap
from hv15.records.json_values import JsonObject
from hv15.records.metrics import PreviewRecord, WarningRecord
from hv15.records.outputs import LATENTS, OUTPUT_TYPES, VIDEO
from hv15.records.paths import ProjectPaths
from hv15.sample.decode import decode_latents
from hv15.sample.files import write_tensors
from hv15.sample.loras import loras_of
from hv15.sample.prompts import SampleSpec
from hv15.sample.provenance import provenance
from hv15.sample.sampling import read_condition, run
from hv15.train.intervals import Interval
from hv15.train.lora_writer import LoRAWriter
from hv15.train.metrics import MetricsFile
from hv15.train.step_batches import StepBatches

if TYPE_CHECKING:
    from accelerate import Accelerator

    from hv15.models import DiT

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preview:
    """One sample that is made again and again."""

    name: str
    """Of the prompt."""
    spec: SampleSpec
    condition: Path | None
    """The file of `hv15.sample.condition.write_condition`, for i2v."""


@dataclass(frozen=True)
class PreviewPlan:
    """What is sampled, and what samples need besides the transformer."""

    previews: Sequence[Preview]
    trained: str
    """Digest of the training's spec."""
    text: str
    """Digest of the settings that encode prompts."""
    root: Path
    """The project folder, to which the samples' paths are relative."""
    vae: Path
    patch_conv: bool
    """See `VAE.patch_conv`."""


@contextmanager
def sampling_loras(
    dit: DiT, network: LoRANetwork, trained: Mapping[str, Tensor], spec: SampleSpec, root: Path
) -> Iterator[AppliedLoRAs]:
    """Give the transformer a sample's LoRAs in the way that sampling does, the trained one instead of the network.

    Raises:
        UserError: a LoRA of the config cannot be used.
    """
    given: list[tuple[Path, Mapping[str, Tensor], float, Reach]] = [
        (lora.path, read_lora(lora.path)[0], lora.multiplier, lora.reach) for lora in loras_of(spec, root, None)
    ]
    applied = AppliedLoRAs()
    with network.detached(dit):
        if spec.lora_multiplier is not None:
            given.insert(0, (Path("the LoRA in training"), trained, spec.lora_multiplier, EVERYWHERE))
        try:
            for path, tensors, multiplier, reach in given:
                with naming(path):
                    applied.add(dit, read_changes(tensors), multiplier, reach)
            yield applied
        finally:
            applied.remove()


@dataclass(frozen=True)
class Previews:
    """Makes the samples that are due; `run` also makes them on request."""

    interval: Interval
    plan: PreviewPlan
    batches: StepBatches
    folder: Path
    dit: DiT
    network: LoRANetwork
    trained: Callable[[], Mapping[str, Tensor]]
    """Returns the LoRA, or its average, as it would be saved now, with kohya's names."""
    texts: Readable
    device: torch.device
    own: Sequence[Preview]
    """What this process denoises, alone or together with its group."""
    writes: bool
    """Whether this process writes what its group denoises."""
    wait_for_everyone: Callable[[], object]
    ema_decay: float | None = None
    """Of the moving average, if they are made with that."""

    def is_due(self, step: int) -> bool:
        return self.interval.is_due(step, self.batches)

    def run(self, step: int, metrics: MetricsFile) -> None:
        """Make one sample of each preview. A problem is recorded as a warning: it must not end a training."""
        begun = perf_counter()
        try:
            latents = [self._denoise(preview, step) for preview in self.own]
            with parked(movable(self.dit) if self.writes else [], self.device):
                for preview, path in zip(self.own, latents, strict=True):
                    if self.writes:
                        self._decode(preview, path, step)
        except (UserError, torch.OutOfMemoryError) as error:
            log.warning("previews after step %d are missing: %s", step, error)
            hint = error.hint if isinstance(error, UserError) else "make them smaller: train.preview"
            message = f"previews after step {step} are missing: {error}".partition("\n")[0]
            metrics.write(WarningRecord(step=step, message=message, hint=hint or ""))
        self.wait_for_everyone()
        made = [(each.name, path) for each in self.plan.previews if (path := self._path(each, step)).exists()]
        log.info("%s after step %d in %.0f s", counted(len(made), "preview"), step, perf_counter() - begun)
        for name, path in made:
            place = f"{self.folder.name}/{path.name}"
            metrics.write(PreviewRecord(step=step, name=name, path=place, ema_decay=self.ema_decay))

    def _denoise(self, preview: Preview, step: int) -> Path:
        """Write the latents, unscaled float32 [C, F', h, w], and return their path."""
        spec = preview.spec
        text = self.texts.read(caption_key(spec.prompt))
        negative = self.texts.read(caption_key(spec.negative_prompt)) if spec.guided else None
        first, vision = read_condition(spec, preview.condition)
        with sampling_loras(self.dit, self.network, self.trained(), spec, self.plan.root) as loras:
            latents = run(self.dit, spec, text, negative, first, vision, device=self.device, loras=loras)
        path = self.folder / f"{preview.name}.{step_name(step)}{LATENTS.suffix}"
        if self.writes:
            metadata = provenance(spec, self._latents_from(spec, step), loras_of(spec, self.plan.root, None))
            write_tensors(path, {"latents": unscale(latents)[0]}, metadata)
        return path

    def _decode(self, preview: Preview, latents: Path, step: int) -> None:
        """Write what can be viewed, and remove the latents."""
        spec = preview.spec
        made_from = spec.decoding(self.plan.trained, self.plan.text) | {"latents": self._latents_from(spec, step)}
        output = self._path(preview, step)
        device, patch_conv = str(self.device), self.plan.patch_conv
        decode_latents(latents, self.plan.vae, output, spec, made_from=made_from, device=device, patch_conv=patch_conv)
        latents.unlink()

    def _latents_from(self, spec: SampleSpec, step: int) -> JsonObject:
        """What the latents depend on: as the final sample, but with the LoRA after some step."""
        average = {} if self.ema_decay is None else {"ema_decay": self.ema_decay}
        return spec.denoising(self.plan.trained, self.plan.text) | {"step": step, **average}

    def _path(self, preview: Preview, step: int) -> Path:
        decoded = (output for output in OUTPUT_TYPES[preview.spec.output_type] if output.is_decoded)
        return self.folder / f"{preview.name}.{step_name(step)}{next(decoded, VIDEO).suffix}"


def make_previews(
    options: TrainSettings,
    plan: PreviewPlan,
    batches: StepBatches,
    folder: Path,
    dit: DiT,
    network: LoRANetwork,
    writer: LoRAWriter,
    texts: Readable,
    accelerator: Accelerator,
) -> Previews:
    """Return the samples of a training, divided among its processes."""
    group, rank = divmod(accelerator.process_index, options.context_parallel)
    own, writes = plan.previews[group :: options.num_processes], rank == 0
    if options.shard_base:  # gathered from all processes, so all must compute the same
        own, writes = plan.previews, accelerator.is_main_process
    return Previews(
        interval=Interval(options.preview_every_n_steps, options.preview_every_n_epochs, options.preview_at_first),
        plan=plan,
        batches=batches,
        folder=folder / ProjectPaths().previews.name,
        dit=dit,
        network=network,
        trained=writer.averages if options.preview_average else writer.tensors,
        texts=texts,
        device=accelerator.device,
        own=own,
        writes=writes,
        wait_for_everyone=accelerator.wait_for_everyone,
        ema_decay=options.ema_decay if options.preview_average else None,
    )


def step_name(step: int) -> str:
    """Return what stands in the names of files that were made after `step` steps."""
    return f"step{step:06d}"


def movable(dit: DiT) -> list[torch.nn.Module]:
    """Return the blocks that can leave the GPU: all but those that are swapped, which are not there, or divided."""
    swapped = {index for hook in dit.block_hooks if isinstance(hook, BlockSwap) for index in hook.indices}
    blocks = [block for index, block in enumerate(dit.double_blocks) if index not in swapped]
    return [] if any(isinstance(each, DTensor) for each in blocks[0].parameters()) else blocks
