"""Resolves the samples that a config asks for. Loads no torch, because planning a workflow uses it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hv15.config.sample_columns import SampleColumn, columns_of
from hv15.errors import UserError
from hv15.lora.reach import Reach
from hv15.models.super_resolution import SuperResolution
from hv15.models.variants import VARIANTS
from hv15.models.weights.fingerprint import model_fingerprint
from hv15.records.outputs import enlarged
from hv15.sample.prompts import WHOLE, Enlarged, ImageFile, LoRAFile, SampleSpec, StepCaching
from hv15.sample.resolutions import enlarged_size

if TYPE_CHECKING:
    from hv15.config import PromptSettings, Settings
    from hv15.config.loras import SampledLoraSettings
    from hv15.config.step_cache import StepCacheSettings

BASE_SUFFIX, PREVIEW_SUFFIX = ".base", ".preview"  # a prompt's own name has no dot, so these cannot collide

T = TypeVar("T")


def plan_samples(
    settings: Settings,
    variant: str,
    models: Mapping[str, str],
    fingerprint: Callable[[Path], str] = model_fingerprint,
) -> list[SampleSpec]:
    """Return the samples of a config, in its order.

    `seeds` makes several of a prompt, `<name>.seed<N>`; `strengths` and `compare` several of each of these,
    `<name>.x<S>` and `<name>.with-<file>`; `with_base` adds one without the trained LoRA, `<name>.base`. Without
    datasets there is no trained LoRA.

    Args:
        variant: the checkpoint in use, one of `hv15.models.variants.VARIANTS`, with the defaults for steps, guidance
            and shift.
        models: the identity of each model in digests, by role.
        fingerprint: computes the fingerprints of images and LoRA files; a cached one makes planning fast.

    Raises:
        UserError: an image or LoRA file is missing.
    """
    specs = []
    columns = columns_of(settings.sample, trains=bool(settings.datasets))
    for prompt in settings.sample.prompts:
        planned = _plan(settings, prompt, variant, models, fingerprint)
        with_base = bool(settings.datasets) and first_set(prompt.with_base, settings.sample.with_base)
        compared = {
            column.suffix: _lora_file(settings, prompt, column.lora, planned.steps, fingerprint)
            for column in columns
            if column.lora is not None
        }
        for name, seed in settings.sample.seeds_of(prompt).items():
            row = replace(planned, name=name, seed=seed)
            for column in columns:
                lora = compared.get(column.suffix)
                spec = row.at_strength(column.strength) if lora is None else _with(row, lora, column.strength)
                specs.append(replace(spec, name=name + column.suffix))
            if with_base:
                specs.append(row.without_trained_lora(name + BASE_SUFFIX))
    return specs


def plan_previews(settings: Settings, samples: Mapping[str, SampleSpec]) -> list[SampleSpec]:
    """Return what is sampled while training: samples of the config, perhaps smaller. Of several seeds, the first; of
    several strengths, 1 or the first.

    One that needs a first image of another size than the sample has the name `<name>.preview`.

    Args:
        samples: by their names.
    """
    train, size, trains = settings.train, settings.train.preview, bool(settings.datasets)
    specs = []
    columns = [each for each in columns_of(settings.sample, trains=trains) if each.lora is None and each.strength]
    column = next((each for each in columns if each.strength == 1.0), columns[0] if columns else SampleColumn(".x0"))
    firsts = {
        prompt.name: next(iter(settings.sample.seeds_of(prompt))) + column.suffix for prompt in settings.sample.prompts
    }
    for prompt in train.previews or firsts:
        name = firsts[prompt]
        spec = samples[name]
        height, width = first_set(size.video_size, (spec.height, spec.width))
        resized = spec.image is not None and (height, width) != (spec.height, spec.width)
        steps, frames = first_set(size.infer_steps, spec.steps), first_set(size.video_length, spec.frames)
        new_name = name + PREVIEW_SUFFIX if resized else name
        specs.append(replace(spec, name=new_name, height=height, width=width, steps=steps, frames=frames))
    return specs


def plan_all_enlarged(
    settings: Settings, samples: Mapping[str, SampleSpec], super_resolution: SuperResolution, models: Mapping[str, str]
) -> dict[str, SampleSpec]:
    """Return what super resolution makes of a config's samples, by the names of these.

    Args:
        samples: by their names.
        models: the identity of each model that super resolution uses, by role.

    Raises:
        UserError: a LoRA that it uses is to act in steps of which it has none.
    """
    sample, found = settings.sample, dict[str, SampleSpec]()
    columns = columns_of(sample, trains=bool(settings.datasets))
    for prompt in sample.prompts:
        if sample.sr_of(prompt) == "off":
            continue
        for small in (samples[name + column.suffix] for name in sample.seeds_of(prompt) for column in columns):
            large = plan_enlarged(
                replace(small, name=enlarged(small.name), loras=small.loras if sample.sr_with_loras else ()),
                super_resolution,
                models,
                Enlarged(super_resolution.resolution, small.height, small.width),
                enlarged_size(small.height, small.width, super_resolution.resolution),
                steps=sample.sr_steps,
                flow_shift=sample.sr_flow_shift,
                lora_multiplier=small.lora_multiplier if sample.sr_with_loras else None,
            )
            for lora in large.loras:
                _check_steps(lora, large.steps, f"sample.prompts: {prompt.name}: super resolution")
            found[small.name] = large
    return found


def plan_enlarged(
    spec: SampleSpec,
    super_resolution: SuperResolution,
    models: Mapping[str, str],
    enlarges: Enlarged,
    size: tuple[int, int],
    *,
    steps: int | None = None,
    flow_shift: float | None = None,
    lora_multiplier: float | None = None,
) -> SampleSpec:
    """Return the sample of super resolution that enlarges a smaller one, from the same prompt and seed.

    Args:
        spec: the smaller one, of which the LoRAs are those that super resolution uses.
        models: the identity of each model that is used now, by role.
        size: (height, width) in pixels.
        steps, flow_shift: None: those of the official program.
        lora_multiplier: strength of the trained LoRA in super resolution; None: it is not used there.
    """
    height, width = size
    return replace(
        spec,
        negative_prompt="",
        height=height,
        width=width,
        steps=first_set(steps, super_resolution.infer_steps),
        guidance_scale=super_resolution.guidance_scale,
        flow_shift=first_set(flow_shift, super_resolution.flow_shift),
        variant=super_resolution.name,
        lora_multiplier=lora_multiplier,
        models=dict(models),
        step_cache=None,
        guidance_interval=WHOLE,
        cfg_zero_star=False,
        zero_init_steps=0,
        enlarges=enlarges,
    )


def _plan(
    settings: Settings,
    prompt: PromptSettings,
    variant: str,
    models: Mapping[str, str],
    fingerprint: Callable[[Path], str],
) -> SampleSpec:
    """Resolve one prompt: its own settings, else those of the section, else the checkpoint's defaults."""
    sample, official, image = settings.sample, VARIANTS[variant], prompt.image_path
    height, width = first_set(prompt.video_size, sample.video_size)
    guidance = first_set(prompt.guidance_scale, sample.guidance_scale, official.guidance_scale)

    steps = first_set(prompt.infer_steps, sample.infer_steps, official.infer_steps)
    if sample.zero_init_steps >= steps:
        raise UserError(
            f"sample.prompts: {prompt.name}: sample.zero_init_steps is {sample.zero_init_steps} of {steps} steps, so "
            "nothing would be denoised",
            hint="CFG-Zero* uses 1 or 2 of 50 steps: lower it, or raise infer_steps",
        )
    loras = [_lora_file(settings, prompt, each, steps, fingerprint) for each in first_set(prompt.loras, sample.loras)]
    return SampleSpec(
        name=prompt.name,
        task=settings.task,
        prompt=prompt.prompt,
        negative_prompt=first_set(prompt.negative_prompt, sample.negative_prompt) if guidance > 1 else "",
        height=height,
        width=width,
        frames=first_set(prompt.video_length, sample.video_length),
        steps=steps,
        guidance_scale=guidance,
        flow_shift=first_set(prompt.flow_shift, sample.flow_shift, official.flow_shift),
        seed=sample.seed,
        fps=first_set(prompt.fps, sample.fps),
        output_type=first_set(prompt.output_type, sample.output_type),
        dtype=sample.dtype,
        vae_dtype=sample.vae_dtype,
        quantize=sample.quantize,
        vae_sample_size=sample.vae_sample_size,
        vae_tile_overlap=sample.vae_tile_overlap,
        variant=variant,
        lora_multiplier=first_set(prompt.lora_multiplier, sample.lora_multiplier) if settings.datasets else None,
        image=None if image is None else ImageFile(*_found(settings, prompt, image, fingerprint)),
        loras=tuple(loras),
        models=dict(models),
        step_cache=_step_cache(sample.step_cache),
        guidance_interval=sample.guidance_interval,
        cfg_zero_star=sample.cfg_zero_star,
        zero_init_steps=sample.zero_init_steps,
        vae_seamless_tiles=sample.vae_seamless_tiles,
        sage_blocks=sample.sage_blocks,
        guidance_batch=sample.guidance_batch,
    )


def _lora_file(
    settings: Settings,
    prompt: PromptSettings,
    lora: SampledLoraSettings,
    steps: int,
    fingerprint: Callable[[Path], str],
) -> LoRAFile:
    """A LoRA of a sample with so many steps."""
    file = LoRAFile(*_found(settings, prompt, lora.path, fingerprint), lora.multiplier, Reach.from_settings(lora))
    _check_steps(file, steps, f"sample.prompts: {prompt.name}")
    return file


def _found(
    settings: Settings, prompt: PromptSettings, path: str, fingerprint: Callable[[Path], str]
) -> tuple[str, str]:
    """A file's path, as the config names it, and its fingerprint."""
    file = settings.resolve(path)
    if not file.is_file():
        place = settings.place_of(("sample", "prompts", settings.sample.prompts.index(prompt)))
        own = path in (prompt.image_path, *(lora.path for lora in prompt.loras or ()))
        where = str(place) if own and place.file is not None else "sample.prompts"
        raise UserError(f"{where}: {prompt.name}: {file}: no such file", hint="correct the path")
    return str(Path(path).expanduser()), fingerprint(file)


def _with(row: SampleSpec, lora: LoRAFile, strength: float) -> SampleSpec:
    """A row's sample with another LoRA, at a factor of its strength, instead of the trained one."""
    used = replace(lora, multiplier=lora.multiplier * strength)
    return replace(row, loras=(*row.loras, used), lora_multiplier=None)


def _check_steps(lora: LoRAFile, steps: int, where: str) -> None:
    """Check that a LoRA acts in some of the steps.

    Raises:
        UserError: it does not.
    """
    try:
        lora.reach.check_steps(steps)
    except UserError as error:
        raise UserError(f"{where}: {lora.path}: {error.message}", hint=error.hint) from error


def _step_cache(settings: StepCacheSettings) -> StepCaching | None:
    if settings.rule == "none":
        return None
    return StepCaching(settings.rule, settings.start, settings.end, settings.interval, settings.threshold)


def first_set(*values: T | None) -> T:
    """Return the first value that is not None."""
    return next(value for value in values if value is not None)
