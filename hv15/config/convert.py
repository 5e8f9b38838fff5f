"""`convert:` the other formats of the LoRA that the workflow writes."""

from __future__ import annotations

from pydantic import field_validator

from hv15.choices import PublishedLayout
from hv15.config.section import Section


class ConvertSettings(Section):
    """Copies of the trained LoRA in the layouts that other programs expect."""

    formats: tuple[PublishedLayout, ...] = ("comfyui",)
    """Files written beside results/lora.safetensors: `comfyui` (for ComfyUI, without a custom node), `diffusers`
    (transformer.load_lora_adapter), `official` (generate.py --lora_path). [] for none."""

    @field_validator("formats")
    @classmethod
    def _formats_differ(cls, value: tuple[PublishedLayout, ...]) -> tuple[PublishedLayout, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"found {list(value)}, expected each format only once")
        return value
