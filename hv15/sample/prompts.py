"""The spec of a sample: one prompt of the config with all its settings resolved, stored as its own file.

Nothing in a prompt's text is ever read as an option.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from pydantic import TypeAdapter, ValidationError

from hv15.choices import ENLARGING_ROLES, EnlargedResolution, GuidanceBatch, StepCacheRule, Task
from hv15.errors import UserError
from hv15.grid import latent_size
from hv15.lora.reach import EVERYWHERE, Reach
from hv15.records import formats
from hv15.records.json_values import Json, JsonObject, parse_object
from hv15.records.outputs import OutputType

WHOLE = (0.0, 1.0)
"""All noise levels."""
_NOT_DENOISED = (
    *("fps", "output_type", "vae_sample_size", "vae_tile_overlap", "vae_seamless_tiles"),  # used only by decoding
    "vae_dtype",  # of latents only where the VAE encodes an image or a video
    *("name", "variant"),  # the sample's name, and the source of the defaults
    *("image", "loras", "models"),  # SampleSpec.denoising adds what identifies their content
)
"""Fields on which the latents do not depend, or not as they are."""
LOW = "low"
"""The entry of `SampleSpec.denoising` for the sample that is enlarged."""
_MADE_AGAIN = "remove the file and start the run again, which writes it again"


@dataclass(frozen=True)
class LoRAFile:
    """A LoRA in addition to the trained one: its path from the project folder, fingerprint, strength, and its reach."""

    path: str
    fingerprint: str
    multiplier: float
    reach: Reach = EVERYWHERE


@dataclass(frozen=True)
class ImageFile:
    """The first frame of an i2v sample: its path from the project folder and its fingerprint."""

    path: str
    fingerprint: str


@dataclass(frozen=True)
class StepCaching:
    """Which steps of a sample reuse what the blocks gave in earlier ones (`hv15.models.step_cache`)."""

    rule: StepCacheRule
    start: float
    end: float
    interval: int
    threshold: float


@dataclass(frozen=True)
class Enlarged:
    """What a sample of super resolution enlarges: a smaller video."""

    resolution: EnlargedResolution
    height: int
    width: int
    """Height and width of the small video in pixels."""
    file: str = ""
    """The fingerprint of its file; "" if it is a sample, of which it is known what it is made from."""


@dataclass(frozen=True)
class SampleSpec:
    """Everything on which a sample depends, except the trained LoRA, which does not exist yet when it is planned."""

    name: str
    task: Task
    prompt: str
    negative_prompt: str
    height: int
    width: int
    frames: int
    """Number of pixel frames, 4k+1."""
    steps: int
    guidance_scale: float
    flow_shift: float
    seed: int
    fps: float
    output_type: OutputType
    dtype: str
    quantize: str
    """Number format of the transformer's weights: none, fp8, int8, nf4."""
    vae_sample_size: int
    """Size of the VAE's tiles in pixels; 0 decodes each frame as a whole."""
    vae_tile_overlap: float
    variant: str
    """The checkpoint whose official defaults stand for settings that the config does not set."""
    lora_multiplier: float | None
    """Strength of the trained LoRA; None samples without it, for comparison."""
    image: ImageFile | None
    loras: tuple[LoRAFile, ...]
    models: Mapping[str, str]
    """Identity of each model that the sample depends on, by role: dit, vae, text_encoder, ..."""
    step_cache: StepCaching | None = None
    """None computes all blocks in all steps."""
    guidance_interval: tuple[float, float] = WHOLE
    """The noise levels (lowest, highest sigma) at which guidance is used."""
    cfg_zero_star: bool = False
    """Whether the unguided velocity is scaled before guidance."""
    zero_init_steps: int = 0
    """The number of first steps that change nothing."""
    vae_seamless_tiles: bool = False
    """Whether the VAE's tiles have the numbers of the whole picture, instead of being blended."""
    sage_blocks: tuple[int, int] | None = None
    """The first and the last block whose attention is sage's, in 8 bits."""
    guidance_batch: GuidanceBatch = "auto"
    """Whether both branches of guidance are one batch, which changes rounding. Files say what was done."""
    enlarges: Enlarged | None = None
    """For a sample of super resolution; the size, steps and models are then its own."""
    vae_dtype: str | None = None
    """Number format of the VAE; None: as `dtype`."""

    @property
    def latent_size(self) -> tuple[int, int, int]:
        """Number of latent frames, rows and columns."""
        return latent_size(self.frames, self.height, self.width)

    @property
    def dtype_of_vae(self) -> str:
        """The number format of the VAE, as `hv15.precision.pick_encoder_dtype` takes it."""
        return self.vae_dtype or self.dtype

    @property
    def _own_vae_dtype(self) -> JsonObject:
        """An entry for the VAE's number format, if it is not the transformer's."""
        return {} if self.dtype_of_vae == self.dtype else {"vae_dtype": self.vae_dtype}

    def denoising(self, trained: str | None, text: str, low: JsonObject | None = None) -> JsonObject:
        """Return everything on which the latents depend, without names and paths.

        Args:
            trained: digest of what the trained LoRA is made from; included only if the sample uses that LoRA.
            text: digest of the models and settings that encode the prompts.
            low: what the latents of the sample depend on that this one enlarges; None if there is none, or if
                `enlarges` names a file.
        """
        settings = {name: value for name, value in self.to_json().items() if name not in _NOT_DENOISED}
        for name, default in _LATER.items():  # so that what was sampled before they were there stays valid
            if getattr(self, name) == default:
                settings.pop(name, None)
        i2v = self.task == "i2v"
        roles = ("dit", "vae", "image_encoder") if i2v else ("dit",)
        if self.enlarges is not None:
            roles = (*ENLARGING_ROLES, *(("vae", "image_encoder") if i2v else ("vae",)))  # a video is encoded first
        models: JsonObject = {role: self.models[role] for role in roles}
        loras: list[Json] = [
            {"fingerprint": each.fingerprint, "multiplier": each.multiplier, **each.reach.to_json()}
            for each in self.loras
        ]
        return {
            "format": formats.DENOISING,
            "condition_format": formats.CONDITION if i2v else None,
            **settings,
            **(self._own_vae_dtype if "vae" in roles else {}),
            "image": self.image.fingerprint if self.image else None,
            "loras": loras,
            "models": models,
            "text": text,
            "trained": trained if self.lora_multiplier is not None else None,
            **({} if low is None else {LOW: low}),
        }

    def decoding(self, trained: str | None, text: str, low: JsonObject | None = None) -> JsonObject:
        """Return everything on which the pixels depend: the latents, and how they are decoded."""
        return self.decoding_of(self.denoising(trained, text, low))

    def decoding_of(self, latents: JsonObject) -> JsonObject:
        """Return everything on which the pixels depend that are decoded from latents, given what those depend on."""
        seamless = self.vae_seamless_tiles and self.vae_sample_size > 0
        return {
            "format": formats.DECODING,
            "latents": latents,
            "vae": self.models["vae"],
            "fps": self.fps,
            "vae_sample_size": self.vae_sample_size,
            "vae_tile_overlap": self.vae_tile_overlap if self.vae_sample_size and not seamless else None,
            **({"vae_seamless_tiles": True} if seamless else {}),
            **self._own_vae_dtype,
        }

    def conditioning(self) -> JsonObject:
        """Return everything on which the encoded first image of an i2v sample depends."""
        return {
            "format": formats.CONDITION,
            "image": self.image.fingerprint if self.image else None,
            "size": [self.height, self.width],
            **({"enlarged_to": self.enlarges.resolution} if self.enlarges else {}),
            "dtype": self.dtype,
            **self._own_vae_dtype,
            "vae": self.models["vae"],
            "image_encoder": self.models.get("image_encoder"),
        }

    @property
    def guided(self) -> bool:
        """Whether the negative prompt is used: guidance of at most 1 is off, as in the official implementation."""
        return self.guidance_scale > 1

    def to_json(self) -> JsonObject:
        """Return the spec as plain JSON values, which `from_json` reads."""
        return {**self._json}

    @cached_property
    def _json(self) -> JsonObject:
        # `dataclasses.asdict` of the whole takes ten times as long, and a plan asks for thousands.
        shallow = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return parse_object(json.dumps(shallow | {"models": dict(self.models)}, default=dataclasses.asdict))

    def to_text(self) -> str:
        """Return the spec as one line of JSON, for metadata; equal specs give equal bytes."""
        return json.dumps(self.to_json(), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, content: Mapping[str, Json], source: str = "sample spec") -> SampleSpec:
        """Make a spec from the result of `to_json`.

        Raises:
            UserError: a field is missing, unknown or of another type; the error names `source`.
        """
        names = {each.name for each in dataclasses.fields(cls)}
        if wrong := sorted((names - content.keys() - _LATER.keys()) | (content.keys() - names)):
            raise UserError.at(
                source,
                f"not a sample of this version of hv15: missing or unknown: {', '.join(wrong)}",
                hint=_MADE_AGAIN,
            )
        try:
            return TypeAdapter(cls).validate_python(content)
        except ValidationError as error:
            wrong = sorted({".".join(map(str, each["loc"])) for each in error.errors()})
            raise UserError.at(source, f"not a sample: wrong values: {', '.join(wrong)}", hint=_MADE_AGAIN) from error

    def at_strength(self, factor: float) -> SampleSpec:
        """Return the same sample with all LoRAs at a factor of their strengths; at 0 it has none."""
        if factor == 1.0:
            return self
        loras = (dataclasses.replace(each, multiplier=each.multiplier * factor) for each in self.loras if factor)
        trained = None if self.lora_multiplier is None or not factor else self.lora_multiplier * factor
        return dataclasses.replace(self, loras=tuple(loras), lora_multiplier=trained)

    def without_trained_lora(self, name: str) -> SampleSpec:
        """Return the same sample, from the same noise, under another name and without the trained LoRA."""
        return dataclasses.replace(self, name=name, lora_multiplier=None)


_LATER = {each.name: each.default for each in dataclasses.fields(SampleSpec) if each.default is not dataclasses.MISSING}
"""Fields that were added after samples were made, with the values that mean what was before."""
