"""$EDITOR, in the terminal, which the dashboard hands over meanwhile."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from hv15.errors import UserError


def edit_file(path: Path) -> None:
    """Open a file in $VISUAL, $EDITOR, or what is there, and wait until it is closed.

    Raises:
        UserError: there is no editor, or it cannot be started.
    """
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    choices = [named] if named else ["nano", "vim", "vi"]
    words = next((shlex.split(each) for each in choices if shutil.which(shlex.split(each)[0])), None)
    if words is None:
        what = (
            f"$EDITOR is {named}, which is not there"
            if named
            else "no $EDITOR is set, and neither nano nor vi is there"
        )
        raise UserError(what, hint="export EDITOR=nano")
    try:
        subprocess.run([*words, str(path)], check=False)
    except OSError as error:
        raise UserError(f"{words[0]}: cannot be started: {error.strerror}") from error
