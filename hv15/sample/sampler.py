"""A transformer in memory that makes samples one after the other, each with LoRAs of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
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
from hv15.sample.files import write_tensors
from hv15.sample.graphs import replayed
from hv15.sample.loras import loras_of
from hv15.sample.prompts import SampleSpec
from hv15.sample.provenance import provenance
from hv15.sample.sampling import read_condition, run

if TYPE_CHECKING:
    from hv15.models import DiT
    from hv15.sample.running import SampleWatcher

BATCHED_TOKENS = 8192
"""Most latent cells for which both branches run as one batch; with more, one branch fills a GPU, and saves memory."""


class Sampler:
    """Makes samples with one transformer. Each call gives what a new process would give.

    Args:
        dit: set up for `settings`, without LoRAs.
        batch_cfg: whether both branches of the guidance run as one batch; None: if that is faster (few tokens, a GPU).
    """

    def __init__(
        self, dit: DiT, settings: SampleSettings, device: torch.device, *, batch_cfg: bool | None = None
    ) -> None:
        self._dit, self._settings, self._device, self._batch_cfg = dit, settings, device, batch_cfg
        self._loras, self._applied = list[WeightedLoRA](), AppliedLoRAs()
        self._model = replayed(dit, settings, device)
        self.after_step: Callable[[int], None] | None = None
        """Called after each step with their number so far; what it raises ends the sample."""

    @property
    def writes(self) -> bool:
        """Whether this process has the results: of several ranks that compute one sample, the first."""
        return self._dit.context_parallel is None or self._dit.context_parallel.rank == 0

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
        batch_cfg = self._batch_cfg
        if batch_cfg is None:
            batch_cfg = self._device.type == "cuda" and prod(spec.latent_size) <= BATCHED_TOKENS
        return run(
            self._model,
            spec,
            text,
            negative,
            first,
            vision,
            device=self._device,
            batch_cfg=batch_cfg,
            after_step=self.after_step,
            low=low,
            loras=self._applied,
            watcher=watcher if self.writes else None,
        )

    def _use(self, loras: Sequence[WeightedLoRA]) -> None:
        """Take the last sample's LoRAs away and add others, unless they are the same."""
        if list(loras) == self._loras:
            return
        self._applied.remove()
        self._loras = []
        self._model = replayed(self._dit, self._settings, self._device)  # what was recorded has the former LoRAs
        self._applied, self._loras = apply_all(self._dit, loras), list(loras)


@contextmanager
def loaded_sampler(
    dit_path: Path,
    settings: SampleSettings,
    dtype: str,
    device: str = "auto",
    *,
    batch_cfg: bool | None = None,
    super_resolution: bool = False,
) -> Iterator[Sampler]:
    """Load the transformer, as one of several ranks if `settings.context_parallel` asks for them.

    Args:
        dtype: the number format in which it computes, as in a `SampleSpec`.
        batch_cfg: see `Sampler`.
        super_resolution: whether it is a transformer of super resolution.

    Raises:
        UserError: the file cannot be loaded, or this machine cannot do what the settings ask.
    """
    with connected(settings.context_parallel, pick_device(device)) as where:
        dit = load_ready(
            dit_path, settings, device=where, dtype=pick_dtype(dtype, where), super_resolution=super_resolution
        )
        yield Sampler(dit, settings, where, batch_cfg=batch_cfg)


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
    batch_cfg: bool | None = None,
    watcher: SampleWatcher | None = None,
) -> None:
    """Denoise one sample and write its latents (unscaled float32 [C, F', h, w]) with their provenance.

    Args:
        lora: the trained LoRA, or None to sample without it; those of the config are in the spec.
        text, negative: see `Sampler.latents`.
        condition: the file of `hv15.sample.condition.write_condition`, for i2v.
        made_from: what the latents depend on, from the stage's spec.
        root: the project folder, to which the spec's paths are relative.
        settings: memory options and kernels of the transformer; the number format is the spec's.
        batch_cfg: see `Sampler`.
        watcher: see `Sampler.latents`.

    Raises:
        UserError: a file is missing, damaged or not the planned one.
    """
    loras = loras_of(spec, root, lora)
    metadata = provenance(spec, made_from, loras)  # before a model is loaded, as it finds changed LoRAs
    first, vision = read_condition(spec, condition)
    settings = (settings or SampleSettings()).model_copy(update={"quantize": spec.quantize})
    with loaded_sampler(dit_path, settings, spec.dtype, device, batch_cfg=batch_cfg) as sampler:
        latents = sampler.latents(spec, loras, text, negative, first, vision, watcher=watcher)
        if sampler.writes:
            write_tensors(output, {"latents": unscale(latents)[0]}, metadata)
