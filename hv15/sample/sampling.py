"""The denoising stage: makes `<name>.latents.safetensors` from text states. Loads only the transformer."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hv15.config.sample import SampleSettings
from hv15.errors import UserError
from hv15.lora.weighted import apply_all
from hv15.models import Condition
from hv15.models.condition import check_widths, widths_of
from hv15.models.context_parallel import connected
from hv15.models.latents import scale, unscale
from hv15.models.ready import load_ready
from hv15.precision import pick_device, pick_dtype
from hv15.progress import Progress
from hv15.records.json_values import JsonObject
from hv15.sample.denoise import denoise
from hv15.sample.files import CONDITION, read_tensors, write_tensors
from hv15.sample.graphs import Replayed, replayed
from hv15.sample.loras import loras_of
from hv15.sample.noise import initial_noise
from hv15.sample.prompts import SampleSpec
from hv15.sample.provenance import provenance
from hv15.sample.schedule import sigmas

if TYPE_CHECKING:
    from hv15.models import DiT

BATCHED_TOKENS = 8192
"""Most latent cells for which both branches run as one batch; with more, one branch fills a GPU, and saves memory."""


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
) -> None:
    """Denoise one sample and write its latents (unscaled float32 [C, F', h, w]) with their provenance.

    Args:
        lora: the trained LoRA, or None to sample without it; those of the config are in the spec.
        text, negative: store items of the prompt and the negative prompt: `text` [L, 3584], `glyphs` [G, 1472].
        condition: the file of `hv15.sample.condition.write_condition`, for i2v.
        made_from: what the latents depend on, from the stage's spec.
        root: the project folder, to which the spec's paths are relative.
        settings: memory options and kernels of the transformer; the number format is the spec's.
        batch_cfg: whether both branches of the guidance run as one batch; None: if that is faster (few tokens, a GPU).

    Raises:
        UserError: a file is missing, damaged or not the planned one.
    """
    loras = loras_of(spec, root, lora)
    metadata = provenance(spec, made_from, loras)  # before a model is loaded, as it finds changed LoRAs
    first, vision = read_condition(spec, condition)
    settings = (settings or SampleSettings()).model_copy(update={"quantize": spec.quantize})
    with connected(settings.context_parallel, pick_device(device)) as where:
        dit = load_ready(dit_path, settings, device=where, dtype=pick_dtype(spec.dtype, where))
        check_widths(dit.config, widths_of(text))
        if first is not None and vision is not None:
            check_widths(dit.config, widths_of({"latents": first, "vision": vision}))
        apply_all(dit, loras)
        if batch_cfg is None:
            batch_cfg = where.type == "cuda" and prod(spec.latent_size) <= BATCHED_TOKENS
        model = replayed(dit, settings, where)
        latents = run(model, spec, text, negative, first, vision, device=where, batch_cfg=batch_cfg)
        if dit.context_parallel is None or dit.context_parallel.rank == 0:
            write_tensors(output, {"latents": unscale(latents)[0]}, metadata)


def run(
    dit: DiT | Replayed,
    spec: SampleSpec,
    text: Mapping[str, Tensor],
    negative: Mapping[str, Tensor] | None,
    first: Tensor | None,
    vision: Tensor | None,
    *,
    device: torch.device,
    batch_cfg: bool = False,
) -> Tensor:
    """Denoise the sample of a spec with a model in memory; return scaled latents, float32 [1, C, F', h, w].

    Args:
        first: unscaled latent [C, 1, h, w] of the first frame for i2v, else None.
        vision: SigLIP's states [729, 1152] of the first frame for i2v, else None.

    Raises:
        UserError: the model returned NaN or infinity.
    """
    cond = text_condition(text, vision, glyphs=True).to(device)
    uncond = None
    if spec.guided:
        if negative is None:
            raise ValueError(f"{spec.name}: guidance {spec.guidance_scale} needs the states of the negative prompt")
        uncond = text_condition(negative, vision, glyphs=False).to(device)
    noise = initial_noise((1, dit.config.latent_channels, *spec.latent_size), spec.seed).to(device)
    with Progress(spec.steps, f"denoise {spec.name}", unit="steps") as progress:
        return denoise(
            dit,
            noise,
            cond,
            uncond,
            sigmas(spec.steps, spec.flow_shift),
            spec.guidance_scale,
            scale(first)[None].to(device) if first is not None else None,
            lambda _: progress.advance(),
            batch_cfg=batch_cfg,
        )


def text_condition(item: Mapping[str, Tensor], vision: Tensor | None, *, glyphs: bool) -> Condition:
    """Make a batch of one from a store item, text [L, 3584] and glyphs [G, 1472], and vision [729, 1152].

    Args:
        glyphs: False leaves out the glyphs, as the official program does for the negative prompt.
    """
    text, glyph = item["text"], item["glyphs"] if glyphs else item["glyphs"][:0]
    return Condition(
        text=text[None],
        text_lengths=[len(text)],
        glyphs=glyph[None],
        glyph_lengths=[len(glyph)],
        vision=None if vision is None else vision[None],
    )


def read_condition(spec: SampleSpec, path: Path | None) -> tuple[Tensor | None, Tensor | None]:
    """Return an i2v sample's first frame: latent [C, 1, h, w], unscaled, and vision [729, 1152]. None twice for t2v.

    Raises:
        UserError: the file is missing, damaged, or of another size.
    """
    if spec.task == "t2v":
        return None, None
    if path is None:
        raise UserError(
            f"{spec.name}: an i2v sample needs its encoded first frame",
            hint="make it with `hv15 sample condition` and pass it as --condition",
        )
    tensors, _ = read_tensors(path, CONDITION, "hv15 encode")
    latents = tensors["latents"]
    expected = (1, *spec.latent_size[1:])
    if latents.shape[1:] != expected:
        raise UserError.at(
            path,
            f"a first frame of {tuple(latents.shape[1:])} latent frames, rows, columns; expected {expected}",
            hint="start the run again, which encodes the image again",
        )
    return latents, tensors["vision"]
