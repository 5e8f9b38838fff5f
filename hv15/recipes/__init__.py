"""Recipes: settings of `train:` with which others train LoRAs of this model, to be written into a new config."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import yaml

from hv15.config.problems import nearest
from hv15.errors import UserError
from hv15.models.variants import VARIANTS

_SETTING = re.compile(r"(\w+):")
_INSTEAD_OF = {"max_train_epochs": "max_train_steps", "save_every_n_epochs": "save_every_n_steps"}
"""A recipe with the first has no use for the second."""
_MEMORY = "# The memory in the comment at the top is without it: `hv15 plan` says what this config needs."


def recipe_names() -> list[str]:
    """Return the names of all recipes."""
    return sorted(Path(file.name).stem for file in files(__name__).iterdir() if file.name.endswith(".yaml"))


def with_recipe(config: str, name: str) -> str:
    """Return a preset's config.yaml with a recipe's settings in place of its own.

    Raises:
        UserError: there is no recipe of this name.
    """
    names = recipe_names()
    if name not in names:
        raise UserError(f"there is no recipe '{name}'{nearest(name, names)}", hint=f"use one of {', '.join(names)}")
    recipe = (files(__name__) / f"{name}.yaml").read_text(encoding="utf-8")
    comment, *settings = recipe.replace("{sampling_shift}", f"{_sampling_shift(config):g}").splitlines()
    replaced = {_key(line) for line in settings}
    replaced |= {_INSTEAD_OF[key] for key in replaced & _INSTEAD_OF.keys()}
    before, train, block, after = _divided(config)
    kept = [line for line in block if _key(line.strip()) not in replaced]
    heading = [f"  # Recipe {name}: {comment.removeprefix('# ')}", f"  {_MEMORY}"]
    rest = ["  # The preset's own.", *kept] if kept else []
    return "\n".join([*before, train, *heading, *(f"  {line}" for line in settings), *rest, *after]) + "\n"


def _divided(config: str) -> tuple[list[str], str, list[str], list[str]]:
    """The lines of a preset: those before `train:`, it, its settings (a line for each), and those after them."""
    lines = config.splitlines()
    start = lines.index("train:")
    end = next(number for number in range(start + 1, len(lines)) if not lines[number].startswith("  "))
    return lines[:start], lines[start], lines[start + 1 : end], lines[end:]


def _key(line: str) -> str:
    found = _SETTING.match(line)
    return found[1] if found else ""


def _sampling_shift(config: str) -> float:
    """The shift with which a preset samples."""
    content = yaml.safe_load(config)
    shift = content["sample"].get("flow_shift")
    return float(VARIANTS[content["models"]["variant"]].flow_shift if shift is None else shift)
