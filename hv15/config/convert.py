"""`convert:` which other formats of the LoRA the workflow writes."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from hv15.config.section import Section

Format = Literal["comfyui", "diffusers", "official"]


class ConvertSettings(Section):
    """Copies of the trained LoRA under the names that other programs expect."""

    formats: tuple[Format, ...] = ("comfyui",)
    """Files written beside results/lora.safetensors: `comfyui` (loads in ComfyUI without a custom node), `diffusers`
    (transformer.load_lora_adapter), `official` (generate.py --lora_path). [] for none."""

    @field_validator("formats")
    @classmethod
    def _formats_differ(cls, value: tuple[Format, ...]) -> tuple[Format, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"found {list(value)}: each format can be given only once")
        return value
