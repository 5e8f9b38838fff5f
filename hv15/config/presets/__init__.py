"""Complete configs to start a project from. The clone holds copies: the demo's at its top, the others in examples/."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from hv15.atomic import write_text
from hv15.config.problems import nearest
from hv15.errors import UserError

DEMO = "demo"
"""The preset that needs nothing: its models and clips come with hv15."""


def preset_names() -> list[str]:
    """Return the names of all presets."""
    return sorted(Path(file.name).stem for file in files(__name__).iterdir() if file.name.endswith(".yaml"))


def preset_text(name: str) -> str:
    """Return the commented config.yaml of a preset.

    Raises:
        UserError: there is no preset of this name.
    """
    names = preset_names()
    if name not in names:
        raise UserError(
            f"there is no preset '{name}'{nearest(name, names)}",
            hint=f"the presets are {', '.join(names)}",
        )
    return (files(__name__) / f"{name}.yaml").read_text(encoding="utf-8")


def new_project(folder: Path, preset: str = "t2v-24gb") -> Path:
    """Make a project: write the preset as config.yaml into a folder, made if needed; return the file's path.

    Raises:
        UserError: unknown preset, or the folder has a config.yaml already, or cannot be written.
    """
    text, config = preset_text(preset), Path(folder) / "config.yaml"
    if config.exists():
        raise UserError(f"{config}: exists already", hint="choose another folder, or delete the file first")
    write_text(config, text)
    return config
