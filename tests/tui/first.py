"""A dashboard that begins on the screen that a test is about: to show another one first takes as long as many keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from tui.app import Dashboard
from tui.project_files import ProjectFiles


def begun_at(screen: str, config: Path, files: ProjectFiles, host: str) -> Dashboard:
    """Return the dashboard, with this screen as its first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dashboard, "DEFAULT_MODE", screen)
        return Dashboard(config, files, host=host)
