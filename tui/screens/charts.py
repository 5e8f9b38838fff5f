"""The Charts screen."""

from __future__ import annotations

from typing import ClassVar

from tui.screens.base import DashboardScreen


class ChartsScreen(DashboardScreen):
    NAME: ClassVar[str] = "charts"
