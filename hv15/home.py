"""Where the workflow's own files are: at the top of a clone, or inside an installed wheel."""

from __future__ import annotations

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
