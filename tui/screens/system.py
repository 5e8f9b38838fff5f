"""The System screen."""

from __future__ import annotations

from typing import ClassVar

from tui.screens.base import DashboardScreen


class SystemScreen(DashboardScreen):
    NAME: ClassVar[str] = "system"
