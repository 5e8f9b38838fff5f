"""Figures of matplotlib as SVG inside a page: in the page's own colours, so that they suit light and dark.

What is drawn in the colour `INK`, or in one of the colours that are given names, gets its colour from the page's style.
Texts stay texts.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#2b2b2b"
"""The colour of axes and texts, for which the page's own stands."""
SERIES = {"#1f77b4": "--blue", "#ff7f0e": "--orange", "#2ca02c": "--green", "#d62728": "--red", "#9467bd": "--violet"}
"""matplotlib's usual colours, and the page's for them."""

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_STYLE = {
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "legend.labelcolor"), INK
    ),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor", "legend.facecolor"), "none"),
    "svg.fonttype": "none",
    "svg.hashsalt": "hv15",
    "font.size": 10,
}
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


def inline_svg(draw: Callable[[], Figure], name: str, label: str, colours: Mapping[str, str] = SERIES) -> str:
    """Return a figure as an `svg` element for a page. Equal figures give equal text.

    Args:
        draw: makes the figure; it is called with the style of pages.
        name: unique in the page, and without blanks.
        label: what it shows, for those who cannot see it.
        colours: a colour of the figure, as #rrggbb -> the page's variable for it, such as `--blue`.
    """
    from matplotlib import style

    buffer = io.StringIO()
    with style.context(_STYLE):
        draw().savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    root = ElementTree.fromstring(buffer.getvalue())
    _clean(root, name)
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    root.attrib |= {"role": "img", "aria-label": label, "class": "chart"}
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    text = ElementTree.tostring(root, encoding="unicode")
    for colour, variable in {**colours, INK: "--ink"}.items():
        text = text.replace(colour, f"var({variable})")
    return text


def _clean(root: ElementTree.Element, name: str) -> None:
    """Remove what does not belong into a page, and begin all names with that of the figure: a page has several."""
    for parent in [*root.iter()]:
        for child in [*parent]:
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        for key, value in [*element.attrib.items()]:
            if key == "id":
                element.attrib[key] = f"{name}-{value}"
            elif key in ("href", f"{{{_XLINK}}}href") and value.startswith("#"):
                element.attrib[key] = f"#{name}-{value[1:]}"
            elif "url(#" in value:
                element.attrib[key] = _REFERENCE.sub(rf"url(#{name}-\1)", value)
