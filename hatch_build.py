"""Writes into a wheel which commit it was built from: a LoRA tells what code has trained it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BuiltFrom(BuildHookInterface):
    """Adds hv15/commit.txt, which hv15/home.py reads. An image is built without the clone's .git, and is given it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        sys.path.insert(0, self.root)
        from hv15.home import BUILT_FROM, COMMIT_VARIABLE, git_commit, uncommitted_changes

        commit = os.environ.get(COMMIT_VARIABLE) or git_commit()
        if commit and version != "editable":  # an installation in place asks git each time
            self.folder = TemporaryDirectory()
            file = Path(self.folder.name) / BUILT_FROM
            file.write_text(f"{commit}\n{uncommitted_changes()}\n")
            build_data["force_include"][str(file)] = f"hv15/{BUILT_FROM}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()
