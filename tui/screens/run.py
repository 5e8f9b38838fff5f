"""The Run screen."""

from __future__ import annotations

from typing import ClassVar

from tui.screens.base import DashboardScreen


class RunScreen(DashboardScreen):
    NAME: ClassVar[str] = "run"
