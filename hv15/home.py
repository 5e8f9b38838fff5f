"""Where the workflow's own files are: at the top of a clone, or inside an installed wheel."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from hv15.errors import UserError

_PACKAGE = Path(__file__).parent
BUILT_FROM = "commit.txt"
"""In the package of a wheel: the commit that it was built from, and on a second line `uncommitted_changes`."""
COMMIT_VARIABLE = "HV15_COMMIT"
"""The environment variable that names the commit while a wheel is built without a clone's .git."""


def workflow_folder() -> Path:
    """Return the folder with hv15's Snakefile, rules/ and profiles/.

    pyproject.toml says which files a wheel carries, and that they are installed in hv15/workflow/files.

    Raises:
        UserError: they are neither in a clone nor in the installed package.
    """
    for folder in (_PACKAGE / "workflow" / "files", _PACKAGE.parent):
        if (folder / "Snakefile").is_file():
            return folder
    raise UserError(f"{_PACKAGE}: the Snakefile is missing from this installation", hint="install hv15 again, by pip")


def clone() -> Path | None:
    """Return the top of the clone that this package runs from; None when it was installed as a wheel."""
    top = _PACKAGE.parent
    return top if (top / "pyproject.toml").is_file() and (top / "Snakefile").is_file() else None


@cache
def git_commit() -> str | None:
    """Return the commit of the clone that this package runs from, or its wheel was built from; None if nobody knows."""
    said = _git("rev-parse", "HEAD")
    return (_built_from()[0] if said is None else said.strip()) or None


@cache
def uncommitted_changes() -> str:
    """Return the sha256 of what differs from that commit; "" if nothing does."""
    said = _git("diff", "HEAD", "--binary")
    if said is None:
        return _built_from()[1]
    return hashlib.sha256(said.encode()).hexdigest() if said else ""


def _built_from() -> tuple[str, str]:
    """What the wheel says: its commit, and `uncommitted_changes`."""
    try:
        commit, changes = (_PACKAGE / BUILT_FROM).read_text().split("\n")[:2]
    except (OSError, ValueError):
        return "", ""
    return commit, changes


def _git(*words: str) -> str | None:
    """Return what git says about the clone; None if there is none, or no git."""
    import subprocess

    root = clone()
    if root is None or not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), *words]
        return subprocess.run(command, capture_output=True, text=True, errors="replace", check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
