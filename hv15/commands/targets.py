"""What is asked for, and of which project: `hv15 run FOLDER experiments`, `hv15 why results/lora.safetensors`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from hv15.records.paths import CONFIG, RESULTS, ProjectPaths
from hv15.records.rules import Rule, TargetRule


class AskedTargets(NamedTuple):
    """What a command line names."""

    project: Path
    targets: tuple[str, ...]


def asked(project: Path, words: tuple[str, ...], targets: tuple[str, ...], experiment: str = "") -> AskedTargets:
    """Return the project and the targets.

    Args:
        project: the first word; without a project before it, a word that names a target.
        words: those after it.
        targets: those of `--target`.
        experiment: if nothing is named, all of that one is asked for.
    """
    if is_target(project):
        project, words = Path(), (str(project), *words)
    named = (*words, *targets)
    if experiment and not named:
        named = (str(ProjectPaths(run=experiment).lora),)
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
