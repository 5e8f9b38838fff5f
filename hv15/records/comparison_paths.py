"""The paths of all files of a comparison of trainings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ComparisonPaths:
    """The files of a comparison of trainings."""

    folder: Path

    @property
    def page(self) -> Path:
        """Everything on one page."""
        return self.folder / "comparison.html"

    @property
    def table(self) -> Path:
        """A row for each training."""
        return self.folder / "comparison.csv"

    @property
    def groups(self) -> Path:
        """A row for each setting, with mean and deviation over its seeds."""
        return self.folder / "comparison.groups.csv"

    @property
    def latex(self) -> Path:
        """The table for a paper."""
        return self.folder / "comparison.tex"

    @property
    def sheet(self) -> Path:
        """A few frames of each sample, side by side."""
        return self.folder / "comparison.png"

    @property
    def film(self) -> Path:
        """The samples side by side in one video."""
        return self.folder / "comparison.mp4"

    @property
    def charts(self) -> Path:
        """The folder of the curves."""
        return self.folder / "comparison.charts"
