"""A transformer in memory that makes samples one after the other, each with LoRAs of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hv15.config.sample import SampleSettings
from hv15.lora.applied import AppliedLoRAs
from hv15.lora.weighted import WeightedLoRA, apply_all
from hv15.models.condition import check_widths, widths_of
from hv15.models.context_parallel import connected
from hv15.models.latents import unscale
from hv15.models.ready import load_ready
from hv15.precision import pick_device, pick_dtype
from hv15.records.json_values import JsonObject
from hv15.records.metadata import SAMPLE
from hv15.sample.files import write_tensors
from hv15.sample.graphs import replayed
from hv15.sample.guidance_batch import Inputs, Need, batches, free_memory, settled
from hv15.sample.loras import loras_of
from hv15.sample.prompts import SampleSpec
from hv15.sample.provenance import provenance
from hv15.sample.sampling import read_condition, run

if TYPE_CHECKING:
    from hv15.models import DiT
    from hv15.sample.running import SampleWatcher


class Sampler:
    """Makes samples with one transformer. Each call gives what a new process would give.

    Args:
        dit: set up for `settings`, without LoRAs.
        need: what counts the memory of one batch for `guidance_batch: by_memory`; None: that is two passes.
    """

    def __init__(self, dit: DiT, settings: SampleSettings, device: torch.device, *, need: Need | None = None) -> None:
        self._dit, self._settings, self._device, self._need = dit, settings, device, need
        self._loras, self._applied = list[WeightedLoRA](), AppliedLoRAs()
        self._model = replayed(dit, settings, device)
        self.after_step: Callable[[int], None] | None = None
        """Called after each step with their number so far; what it raises ends the sample."""

    @property
    def writes(self) -> bool:
        """Whether this process has the results: of several ranks that compute one sample, the first."""
        return self._dit.context_parallel is None or self._dit.context_parallel.rank == 0

    def settled(
        self,
        spec: SampleSpec,
        loras: Sequence[WeightedLoRA],
        text: Mapping[str, Tensor],
        negative: Mapping[str, Tensor] | None,
    ) -> SampleSpec:
        """Return the spec with what `guidance_batch: by_memory` comes to with the memory that is free now.

        `latents` does so as well. Its result says how they are made, for their metadata; arguments as there.
        """
        if self._need is None:
            return replace(spec, guidance_batch="two_pass") if spec.guidance_batch == "by_memory" else spec
        tokens = max(len(text["text"]) + len(text["glyphs"]), 0 if negative is None else len(negative["text"]))
        files = sum(lora.path.stat().st_size for lora in loras if lora.multiplier)
        return settled(spec, Inputs(self._dit.config, tokens, files), self._need, self._free_memory)

    def _free_memory(self) -> int:
        """Bytes that are free for a sample; of several ranks, where there is least, as all must do the same."""
        free, parallel = free_memory(self._device), self._dit.context_parallel
        if parallel is None:
            return free
        return parallel.least(free if self._device.type == "cuda" else free // parallel.size, self._device)

    def latents(
        self,
        spec: SampleSpec,
        loras: Sequence[WeightedLoRA],
        text: Mapping[str, Tensor],
        negative: Mapping[str, Tensor] | None,
        first: Tensor | None,
        vision: Tensor | None,
        low: Tensor | None = None,
        *,
        watcher: SampleWatcher | None = None,
    ) -> Tensor:
        """Return the scaled latents of a sample, float32 [1, C, F', h, w].

        Args:
            loras: all that the sample uses.
            text, negative: store items of the prompt and the negative prompt: `text` [L, 3584], `glyphs` [G, 1472].
            first: unscaled latent [C, 1, h, w] of the first frame for i2v, else None.
            vision: SigLIP's states [729, 1152] of the first frame for i2v, else None.
            low: for a model of super resolution, what `super_resolution.upsampled` made, [1, C, F', h, w]; else None.
            watcher: is shown what the sample becomes.

        Raises:
            UserError: a LoRA cannot be used, the encoded inputs belong to another model, or the result is not finite.
        """
        check_widths(self._dit.config, widths_of(text))
        if first is not None and vision is not None:
            check_widths(self._dit.config, widths_of({"latents": first, "vision": vision}))
        self._use(loras)
        spec = self.settled(spec, loras, text, negative)
        return run(
            self._model,
            spec,
            text,
            negative,
            first,
            vision,
            device=self._device,
            batch_cfg=batches(spec.guidance_batch, spec.latent_size, gpu=self._device.type == "cuda"),
            after_step=self.after_step,
            low=low,
            loras=self._applied,
            watcher=watcher if self.writes else None,
        )

    def write(
        self,
        output: Path,
        spec: SampleSpec,
        loras: Sequence[WeightedLoRA],
        text: Mapping[str, Tensor],
        negative: Mapping[str, Tensor] | None,
        first: Tensor | None,
        vision: Tensor | None,
        metadata: Mapping[str, str],
        *,
        low: Tensor | None = None,
        watcher: SampleWatcher | None = None,
    ) -> None:
        """Make a sample and write its latents, unscaled float32 [C, F', h, w], unless another rank does.

        Args:
            text, negative, first, vision, low, watcher: see `latents`.
            metadata: what the file says about how it was made; what `settled` returns is added.

        Raises:
            UserError: as `latents`, or the file cannot be written.
        """
        spec = self.settled(spec, loras, text, negative)
        latents = self.latents(spec, loras, text, negative, first, vision, low, watcher=watcher)
        if self.writes:
            write_tensors(output, {"latents": unscale(latents)[0]}, {**metadata, SAMPLE: spec.to_text()})

    def _use(self, loras: Sequence[WeightedLoRA]) -> None:
        """Take the last sample's LoRAs away and add others, unless they are the same."""
        if list(loras) == self._loras:
            return
        self._applied.remove()
        self._loras = []
        self._model = replayed(self._dit, self._settings, self._device)  # what was recorded has the former LoRAs
        self._applied, self._loras = apply_all(self._dit, loras), list(loras)


def with_spec(settings: SampleSettings, spec: SampleSpec) -> SampleSettings:
    """Return the settings with which the transformer is loaded for a sample: what changes its numbers is the spec's."""
    return settings.model_copy(update={"quantize": spec.quantize, "sage_blocks": spec.sage_blocks})


@contextmanager
def loaded_sampler(
    dit_path: Path,
    settings: SampleSettings,
    dtype: str,
    device: str = "auto",
    *,
    need: Need | None = None,
    super_resolution: bool = False,
) -> Iterator[Sampler]:
    """Load the transformer, as one of several ranks if `settings.context_parallel` asks for them.

    Args:
        dtype: the number format in which it computes, as in a `SampleSpec`.
        need: see `Sampler`.
        super_resolution: whether it is a transformer of super resolution.

    Raises:
        UserError: the file cannot be loaded, or this machine cannot do what the settings ask.
    """
    with connected(settings.context_parallel, pick_device(device)) as where:
        dit = load_ready(
            dit_path, settings, device=where, dtype=pick_dtype(dtype, where), super_resolution=super_resolution
        )
        yield Sampler(dit, settings, where, need=need)


def sample_latents(
    spec: SampleSpec,
    dit_path: Path,
    lora: Path | None,
    text: Mapping[str, Tensor],
    negative: Mapping[str, Tensor] | None,
    condition: Path | None,
    output: Path,
    *,
    made_from: JsonObject,
    root: Path = Path(),
    device: str = "auto",
    settings: SampleSettings | None = None,
    need: Need | None = None,
    watcher: SampleWatcher | None = None,
) -> None:
    """Denoise one sample and write its latents (unscaled float32 [C, F', h, w]) with their provenance.

    Args:
        lora: the trained LoRA, or None to sample without it; those of the config are in the spec.
        text, negative: see `Sampler.latents`.
        condition: the file of `hv15.sample.condition.write_condition`, for i2v.
        made_from: what the latents depend on, from the stage's spec.
        root: the project folder, to which the spec's paths are relative.
        settings: memory options and kernels of the transformer; number format and sage's blocks are the spec's.
        need: see `Sampler`.
        watcher: see `Sampler.latents`.

    Raises:
        UserError: a file is missing, damaged or not the planned one.
    """
    loras = loras_of(spec, root, lora)
    metadata = provenance(spec, made_from, loras)  # before a model is loaded, as it finds changed LoRAs
    first, vision = read_condition(spec, condition)
    settings = with_spec(settings or SampleSettings(), spec)
    with loaded_sampler(dit_path, settings, spec.dtype, device, need=need) as sampler:
        sampler.write(output, spec, loras, text, negative, first, vision, metadata, watcher=watcher)
