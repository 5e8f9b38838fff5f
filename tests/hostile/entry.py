"""One hostile input: the files, the command that reads them, what it must say, and what that may cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MADE_LATER = "models: {source: demo}\n"
"""The beginning of a config whose models need not exist."""


@dataclass(frozen=True)
class Hostile:
    """Files that somebody wrote to do harm, that an editor wrecked, or that a disk damaged."""

    make: Callable[[Path], object]
    """Writes them into an empty folder, in which the command runs."""
    command: tuple[str, ...]
    """The words after `hv15`."""
    said: tuple[str, ...]
    """Parts of what it prints: the place, what was found, what was expected, what to do."""
    code: int = 2
    """Its exit code."""
    seconds: int = 5
    """The most CPU time, enforced by the kernel."""
    mib: int = 300
    """The most memory on top of what the program itself needs, enforced by the kernel."""
    finished: bool = False
    """Whether the folder is a copy of a finished project instead of an empty one."""


def project(datasets: str, *, files: Callable[[Path], object] = lambda folder: None) -> Callable[[Path], None]:
    """A project with these datasets, as YAML, and what else is in its folder."""

    def make(folder: Path) -> None:
        (folder / "config.yaml").write_text(f"{MADE_LATER}datasets: {datasets}\n")
        files(folder)

    return make
