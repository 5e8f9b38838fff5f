"""The Dataset screen."""

from __future__ import annotations

from typing import ClassVar

from tui.screens.base import DashboardScreen


class DatasetScreen(DashboardScreen):
    NAME: ClassVar[str] = "dataset"
