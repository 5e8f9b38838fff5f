"""Renders Markdown files from jinja2 templates; in a comment at their end, which no reader shows, they tell what they
were made from."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from pathlib import Path

from hv15.pages.html import templates
from hv15.records.json_values import JsonObject
from hv15.records.metadata import MADE_FROM

_BEGIN, _END = f"<!-- {MADE_FROM}: ", " -->"
_LONGEST = 2**20  # bytes of the comment
_MARKS = re.compile(r"[\\`*_\[\]|#]")


def render_markdown(template: Path, content: Mapping[str, object]) -> str:
    """Return a text. A value is Markdown itself, unless the template passes it through the filter `plain`.

    Args:
        content: the template's variables; all of them are needed.
    """
    environment = templates([template.parent], autoescape=False)
    environment.filters["plain"] = plain
    return environment.get_template(template.name).render(content).rstrip() + "\n"


def plain(text: str) -> str:
    """Return a text as one line of Markdown that shows it as it is."""
    return html.escape(_MARKS.sub(r"\\\g<0>", " ".join(text.split())), quote=False)


def with_made_from(text: str, made_from: JsonObject) -> str:
    """Return a text that tells what it was made from, which `read_markdown_metadata` returns."""
    told = json.dumps(made_from, sort_keys=True).replace("<", "\\u003c").replace(">", "\\u003e")
    return f"{text.rstrip()}\n\n{_BEGIN}{told}{_END}\n"


def without_made_from(text: str) -> str:
    """Return a text without what it tells."""
    before, found, _ = text.rpartition(f"\n{_BEGIN}")
    return before.rstrip() + "\n" if found else text


def read_markdown_metadata(path: Path) -> dict[str, str]:
    """Return what a file tells of itself, by name. One that is cut off tells nothing.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LONGEST))
        last = file.read().decode("utf-8", "replace").rstrip("\n").rpartition("\n")[2]
    if not (last.startswith(_BEGIN) and last.endswith(_END)):
        return {}
    return {MADE_FROM: last.removeprefix(_BEGIN).removesuffix(_END)}
