"""What a sample depends on: one prompt of the config with all its settings resolved, as a file of its own.

A prompt's text is text: nothing in it is ever read as an option.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hv15.atomic import write_json
from hv15.digest import digest
from hv15.errors import UserError
from hv15.models.grid import latent_size

DECODING = ("fps", "output_type", "vae_sample_size", "vae_tile_overlap")
"""The fields of a spec that only decoding reads."""


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
    task: Literal["t2v", "i2v"]
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
    output_type: Literal["video", "images", "latent", "both"]
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

    @property
    def digest(self) -> str:
        """Equal exactly when the specs are."""
        return digest(self.to_json())

    @property
    def denoising(self) -> dict[str, Any]:
        """The part that the latents depend on, as JSON values; another frame rate or VAE tile only decodes again."""
        models = {role: identity for role, identity in self.models.items() if role != "vae" or self.task == "i2v"}
        content = {name: value for name, value in self.to_json().items() if name not in DECODING}
        for file in [content["image"], *content["loras"]]:
            if file is not None:
                del file["path"]  # the fingerprint says what it is
        return {**content, "models": models}

    @property
    def guided(self) -> bool:
        """Whether the negative prompt takes part: guidance of at most 1 is off, as in the official implementation."""
        return self.guidance_scale > 1

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; `from_json` gives the spec back."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def to_text(self) -> str:
        """As one line of JSON, for metadata; equal specs give equal bytes."""
        return json.dumps(self.to_json(), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, content: Mapping[str, Any], source: str = "sample spec") -> SampleSpec:
        """Read what `to_json` gave.

        Raises:
            UserError: a field is missing or unknown; the error names `source`.
        """
        if wrong := sorted(set(content) ^ {each.name for each in dataclasses.fields(cls)}):
            raise UserError(
                f"{source}: not a sample of this version of hv15: missing or unknown: {', '.join(wrong)}",
                hint="remove the file and run the same snakemake command again: it is written anew",
            )
        values = dict(content)
        if values["image"] is not None:
            values["image"] = ImageFile(**values["image"])
        values["loras"] = tuple(LoRAFile(**each) for each in values["loras"])
        return cls(**values)

    def without_trained_lora(self, name: str) -> SampleSpec:
        """The same sample under another name, from the same noise, but without the run's own LoRA."""
        return dataclasses.replace(self, name=name, lora_multiplier=None)

    def write(self, path: Path) -> None:
        """Write `results/samples/<name>.json` atomically; equal specs give equal bytes."""
        write_json(path, self.to_json())

    @classmethod
    def read(cls, path: Path) -> SampleSpec:
        """Read what `write` wrote.

        Raises:
            UserError: the file is missing or is not a sample spec.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: not readable as a sample spec: {error}", hint="run snakemake again") from error
        return cls.from_json(content, source=str(path))
