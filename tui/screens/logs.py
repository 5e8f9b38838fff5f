"""The Logs screen."""

from __future__ import annotations

from typing import ClassVar

from tui.screens.base import DashboardScreen


class LogsScreen(DashboardScreen):
    NAME: ClassVar[str] = "logs"
