"""The Runs screen."""

from __future__ import annotations

from typing import ClassVar

from tui.screens.base import DashboardScreen


class RunsScreen(DashboardScreen):
    NAME: ClassVar[str] = "runs"
