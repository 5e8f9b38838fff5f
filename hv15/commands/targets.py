"""What is asked for, and of which project: `hv15 run FOLDER experiments`, `hv15 why results/lora.safetensors`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from hv15.records.json_values import Json
from hv15.records.paths import CONFIG, RESULTS, config_file
from hv15.records.rules import Rule, TargetRule


class AskedTargets(NamedTuple):
    """What a command line names."""

    project: Path
    targets: tuple[str, ...]


def asked(
    project: Path,
    words: tuple[str, ...],
    targets: tuple[str, ...],
    experiment: str = "",
    overrides: Mapping[str, Json] | None = None,
) -> AskedTargets:
    """Return the project and the targets.

    Args:
        project: the first word; without a project before it, a word that names a target.
        words: those after it.
        targets: those of `--target`.
        experiment: if nothing is named, all of that one is asked for.
        overrides: settings that override the config's.

    Raises:
        ConfigError: there is no such experiment, or its settings are wrong.
        UserError: a model, an image or a LoRA that its samples need is missing.
    """
    if is_target(project):
        project, words = Path(), (str(project), *words)
    named = (*words, *targets)
    if experiment and not named:
        from hv15.project import Project
        from hv15.workflow.rule_names import everything

        named = tuple(everything(Project(config_file(project), overrides, experiment=experiment)))
    return AskedTargets(project, named)


def is_target(word: Path) -> bool:
    """Whether a word names a target of the project in this folder, and is no project itself.

    A target is a rule or a file of the results: any other word is a project, whose name may be mistyped.
    """
    return names_a_target(word) and Path(CONFIG).is_file()


def names_a_target(word: Path) -> bool:
    """Whether a word names a target of any project, and is no project itself."""
    is_project = word.suffix.lower() in (".yaml", ".yml") or (word / CONFIG).is_file()
    return not is_project and (str(word) in {*Rule, *TargetRule} or word.parts[:1] == (RESULTS,))
