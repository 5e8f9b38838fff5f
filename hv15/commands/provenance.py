"""`hv15 show`: what a file says about itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from hv15.errors import UserError

CONFIG = "hv15.config"
"""The metadata entry that holds the whole resolved config."""


def metadata_of(path: Path) -> dict[str, str]:
    """The text metadata of a LoRA, a checkpoint, latents (.safetensors) or a video.

    Raises:
        UserError: the file is missing, damaged, or of a kind that carries none.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "does not exist"
        raise UserError(f"{path}: {found}", hint="give a .safetensors or .mp4 file")
    if path.suffix == ".safetensors":
        from hv15.models.header import read_header

        return read_header(path).metadata
    if path.suffix == ".mp4":
        from hv15.data.encode import read_video_metadata

        return read_video_metadata(path)
    raise UserError(f"{path}: of unknown kind", hint="give a .safetensors or .mp4 file")


def describe(path: Path) -> str:
    """One line an entry; JSON values are laid out, long ones below their name."""
    entries = metadata_of(path)
    if not entries:
        return f"{path}: says nothing about itself"
    lines = []
    for name in sorted(entries):
        value = _parsed(entries[name])
        if isinstance(value, dict | list):
            text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110).rstrip()
            lines.append(f"{name}:\n" + "\n".join(f"  {line}" for line in text.splitlines()))
        else:
            lines.append(f"{name}: {value}")
    return "\n".join(lines)


def config_of(path: Path) -> str:
    """The config.yaml that reproduces the file.

    Raises:
        UserError: the file was not made by hv15.
    """
    config = _parsed(metadata_of(path).get(CONFIG, ""))
    if not isinstance(config, dict):
        raise UserError(f"{path}: holds no hv15 config", hint="only LoRAs that hv15 trained carry one")
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=110)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
