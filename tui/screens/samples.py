"""The Samples screen."""

from __future__ import annotations

from typing import ClassVar

from tui.screens.base import DashboardScreen


class SamplesScreen(DashboardScreen):
    NAME: ClassVar[str] = "samples"
