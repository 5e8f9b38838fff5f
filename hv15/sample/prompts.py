"""What a sample depends on: one prompt of the config with all its settings resolved, as a file of its own.

A prompt's text is text: nothing in it is ever read as an option.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from hv15.choices import Task
from hv15.errors import UserError
from hv15.grid import latent_size
from hv15.records import formats
from hv15.records.json_values import Json, JsonObject, parse_object
from hv15.records.outputs import OutputType

_NOT_DENOISED = (
    *("fps", "output_type", "vae_sample_size", "vae_tile_overlap"),  # read by decoding alone
    *("name", "variant"),  # what it is called, and where defaults came from
    *("image", "loras", "models"),  # known by their content: see SampleSpec.denoising
)
"""Fields that do not enter what the latents depend on, at least not as they are."""
_MADE_ANEW = "remove the file and start the run again: it is written anew"


@dataclass(frozen=True)
class LoRAFile:
    """A LoRA beside the trained one: where it is (from the project folder), its fingerprint, how strongly it acts."""

    path: str
    fingerprint: str
    multiplier: float


@dataclass(frozen=True)
class ImageFile:
    """The first frame of an i2v sample: where it is (from the project folder) and its fingerprint."""

    path: str
    fingerprint: str


@dataclass(frozen=True)
class SampleSpec:
    """Everything that the bytes of a sample depend on, except the run's own LoRA, which is trained later."""

    name: str
    task: Task
    prompt: str
    negative_prompt: str
    height: int
    width: int
    frames: int
    """Pixel frames, 4k+1."""
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
    """Tile of the VAE in pixels; 0 decodes each frame whole."""
    vae_tile_overlap: float
    variant: str
    """The checkpoint whose official defaults filled what the config left open."""
    lora_multiplier: float | None
    """Strength of the run's own LoRA; None samples without it, for comparison."""
    image: ImageFile | None
    loras: tuple[LoRAFile, ...]
    models: Mapping[str, str]
    """Identity of each model that the sample depends on, by role: dit, vae, text_encoder, ..."""

    @property
    def latent_size(self) -> tuple[int, int, int]:
        """Latent frames, height and width."""
        return latent_size(self.frames, self.height, self.width)

    def denoising(self, trained: str | None, text: str) -> JsonObject:
        """Everything that the latents depend on, without names and places.

        Args:
            trained: digest of what the run's own LoRA is made from; it counts only if the sample uses that LoRA.
            text: digest of how the prompts are encoded: models and settings.
        """
        settings = {name: value for name, value in self.to_json().items() if name not in _NOT_DENOISED}
        i2v = self.task == "i2v"
        roles = ("dit", "vae", "image_encoder") if i2v else ("dit",)
        models: JsonObject = {role: self.models[role] for role in roles}
        loras: list[Json] = [{"fingerprint": each.fingerprint, "multiplier": each.multiplier} for each in self.loras]
        return {
            "format": formats.DENOISING,
            "condition_format": formats.CONDITION if i2v else None,
            **settings,
            "image": self.image.fingerprint if self.image else None,
            "loras": loras,
            "models": models,
            "text": text,
            "trained": trained if self.lora_multiplier is not None else None,
        }

    def decoding(self, trained: str | None, text: str) -> JsonObject:
        """Everything that the pixels depend on: the latents, and how they are decoded."""
        return {
            "format": formats.DECODING,
            "latents": self.denoising(trained, text),
            "vae": self.models["vae"],
            "fps": self.fps,
            "vae_sample_size": self.vae_sample_size,
            "vae_tile_overlap": self.vae_tile_overlap if self.vae_sample_size else None,
        }

    def conditioning(self) -> JsonObject:
        """Everything that the encoded first image of an i2v sample depends on."""
        return {
            "format": formats.CONDITION,
            "image": self.image.fingerprint if self.image else None,
            "size": [self.height, self.width],
            "dtype": self.dtype,
            "vae": self.models["vae"],
            "image_encoder": self.models.get("image_encoder"),
        }

    @property
    def guided(self) -> bool:
        """Whether the negative prompt takes part: guidance of at most 1 is off, as in the official implementation."""
        return self.guidance_scale > 1

    def to_json(self) -> JsonObject:
        """As plain JSON values; `from_json` gives the spec back."""
        return parse_object(json.dumps(dataclasses.asdict(self)))

    def to_text(self) -> str:
        """As one line of JSON, for metadata; equal specs give equal bytes."""
        return json.dumps(self.to_json(), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, content: Mapping[str, Json], source: str = "sample spec") -> SampleSpec:
        """Read what `to_json` gave.

        Raises:
            UserError: a field is missing, unknown or of another type; the error names `source`.
        """
        if wrong := sorted(set(content) ^ {each.name for each in dataclasses.fields(cls)}):
            raise UserError(
                f"{source}: not a sample of this version of hv15: missing or unknown: {', '.join(wrong)}",
                hint=_MADE_ANEW,
            )
        try:
            return TypeAdapter(cls).validate_python(content)
        except ValidationError as error:
            wrong = sorted({".".join(map(str, each["loc"])) for each in error.errors()})
            raise UserError(f"{source}: not a sample: wrong values: {', '.join(wrong)}", hint=_MADE_ANEW) from error

    def without_trained_lora(self, name: str) -> SampleSpec:
        """The same sample under another name, from the same noise, but without the run's own LoRA."""
        return dataclasses.replace(self, name=name, lora_multiplier=None)
