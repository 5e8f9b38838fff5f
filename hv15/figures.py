"""Writes figures of matplotlib into files; equal figures give equal files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hv15.atomic import atomic_path
from hv15.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS: dict[str, Literal["png", "svg"]] = {".png": "png", ".svg": "svg"}
"""End of a file's name -> what the file is."""
PAPER_FORMATS: dict[str, Literal["svg", "pdf"]] = {".svg": "svg", ".pdf": "pdf"}
"""Those without pixels, for pages and papers."""
_DOTS_PER_INCH = 120


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG, SVG or PDF, by the end of the file's name; its folder is made if necessary.

    Raises:
        UserError: the name has none of these ends, or the file cannot be written.
    """
    form = (FORMATS | PAPER_FORMATS).get(path.suffix.lower())
    if form is None:
        hint = "use a name with .png, .svg or .pdf"
        raise UserError.at(path, "is not drawn: the kind of picture is not known", hint=hint)
    import matplotlib as mpl

    varying = {"svg": "Date", "pdf": "CreationDate", "png": "Software"}  # they would differ in equal pictures
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, mpl.rc_context({"svg.hashsalt": "hv15"}):
        figure.savefig(temporary, format=form, dpi=_DOTS_PER_INCH, metadata={varying[form]: None})
