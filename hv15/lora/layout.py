"""The layouts of LoRA files, by name; the command line reads them from here, so nothing else is imported."""

from __future__ import annotations

from typing import Literal, get_args

LoRALayout = Literal["kohya", "comfyui", "diffusers", "official"]
"""Whose names the tensors have: kohya's are ours."""
LORA_LAYOUTS: tuple[LoRALayout, ...] = get_args(LoRALayout)
