"""Complete configs with which to start a project.

The clone has copies of them: the demo's at its top, the others in examples/.
"""

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
            hint=f"use one of {', '.join(names)}",
        )
    return (files(__name__) / f"{name}.yaml").read_text(encoding="utf-8")


def new_project(folder: Path, text: str) -> Path:
    """Make a project: write this config.yaml into a folder, which is created if needed; return the file's path.

    Raises:
        UserError: the folder has a config.yaml already, or it cannot be written.
    """
    config = Path(folder) / "config.yaml"
    if config.exists():
        raise UserError.at(config, "already exists", hint="choose another folder, or delete the file first")
    write_text(config, text)
    return config
