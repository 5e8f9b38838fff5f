"""`convert:` which other formats of the LoRA the workflow writes."""

from __future__ import annotations

from pydantic import field_validator

from hv15.choices import PublishedLayout
from hv15.config.section import Section


class ConvertSettings(Section):
    """Copies of the trained LoRA under the names that other programs expect."""

    formats: tuple[PublishedLayout, ...] = ("comfyui",)
    """Files written beside results/lora.safetensors: `comfyui` (loads in ComfyUI without a custom node), `diffusers`
    (transformer.load_lora_adapter), `official` (generate.py --lora_path). [] for none."""

    @field_validator("formats")
    @classmethod
    def _formats_differ(cls, value: tuple[PublishedLayout, ...]) -> tuple[PublishedLayout, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"found {list(value)}: each format can be given only once")
        return value
