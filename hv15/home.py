"""Where the workflow's own files are: at the top of a clone, or inside an installed wheel."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from hv15.errors import UserError

_PACKAGE = Path(__file__).parent


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
    """Return the commit of the clone that this package runs from; None for an installed wheel."""
    said = _git("rev-parse", "HEAD")
    return None if said is None else said.strip()


@cache
def uncommitted_changes() -> str:
    """Return the sha256 of what differs in this clone from its commit; "" if nothing does, and for a wheel."""
    said = _git("diff", "HEAD", "--binary")
    return hashlib.sha256(said.encode()).hexdigest() if said else ""


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
