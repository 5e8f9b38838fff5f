"""`convert:` the other formats of the LoRA that the workflow writes, and what they say about themselves."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from hv15.choices import PublishedLayout
from hv15.config.section import Section

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
MetadataKept = Literal["full", "public", "none"]


class ConvertSettings(Section):
    """Copies of the trained LoRA in the layouts that other programs expect."""

    formats: tuple[PublishedLayout, ...] = ("comfyui",)
    """Files written beside results/lora.safetensors: `comfyui` (for ComfyUI, without a custom node), `diffusers`
    (transformer.load_lora_adapter), `official` (generate.py --lora_path). [] for none."""

    output_name: str = Field("lora", json_schema_extra={"pattern": _NAME})
    """Beginning of their names, such as `my-style` for results/my-style.comfyui.safetensors."""

    metadata: MetadataKept = "public"
    """What they tell: `public` leaves out the config, with its prompts and paths; `full` keeps everything; `none` tells
    only what a loader needs. results/lora.safetensors always tells everything."""

    title: str = ""
    """Title of the LoRA, which ComfyUI's LoRA managers and Civitai show. Empty: the output name."""

    author: str = ""
    """Who made the LoRA, for its description."""

    description: str = ""
    """What the LoRA does, in a few sentences."""

    tags: tuple[str, ...] = ()
    """Keywords to find it by."""

    trigger_words: tuple[str, ...] = ()
    """Words in a prompt that call for it."""

    license: str = ""
    """Its licence, such as `CC-BY-4.0`."""

    gallery: tuple[str, ...] = ()
    """Names of the prompts that the model card shows, with their text and their samples (docs/reports.md). All others
    stay private."""

    preview: str = ""
    """An image to show, relative to the config file. It is stored in the files, at most 512 pixels wide and high."""

    @field_validator("output_name")
    @classmethod
    def _is_a_file_name(cls, value: str) -> str:
        if not re.fullmatch(_NAME, value):
            raise ValueError(f"found '{value:.120}', expected at most 100 letters, digits, ., - and _ (for file names)")
        return value

    @field_validator("formats")
    @classmethod
    def _formats_differ(cls, value: tuple[PublishedLayout, ...]) -> tuple[PublishedLayout, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"found {list(value)}, expected each format only once")
        return value
