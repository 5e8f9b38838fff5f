"""The Config screen."""

from __future__ import annotations

from typing import ClassVar

from tui.screens.base import DashboardScreen


class ConfigScreen(DashboardScreen):
    NAME: ClassVar[str] = "config"
