"""Renders pages from jinja2 templates. Whatever a value holds is shown as text."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.records.json_values import JsonObject
from hv15.records.metadata import MADE_FROM, VERSION

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
END = "</html>"
"""What every page ends with."""
_HEAD = 2**20  # bytes; what a page tells of itself stands at its beginning


def render(
    template: Path, content: Mapping[str, object], made_from: JsonObject | None = None, *, script: Path | None = None
) -> str:
    """Return a page.

    Args:
        template: a file that extends `base.html`.
        content: the template's variables; all of them are needed.
        made_from: what the page is made from, which `read_page_metadata` returns.
        script: the one script of the page; a browser runs no other one on it.
    """
    import hv15

    told = {VERSION: hv15.__version__}
    if made_from is not None:
        told[MADE_FROM] = json.dumps(made_from, sort_keys=True, ensure_ascii=False)
    page = templates([template.parent, TEMPLATES], autoescape=True).get_template(template.name)
    code = "" if script is None else script.read_text(encoding="utf-8")
    return page.render(content, told=told, script=code, script_digest=script_digest(code)).rstrip() + "\n"


def script_digest(code: str) -> str:
    """Return what stands for a script in a page's policy: base64 of its sha256."""
    return base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()


def templates(folders: Sequence[Path], *, autoescape: bool) -> Environment:
    """Return what renders the templates of some folders; a variable that is missing is an error.

    Args:
        autoescape: whether values are escaped for HTML.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(folders),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def is_whole_page(path: Path) -> bool:
    """Whether nothing is missing at the end of a page.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(END) - 2))
        return file.read().rstrip().endswith(END.encode())


def read_page_metadata(path: Path) -> dict[str, str]:
    """Return what a page tells of itself, by name.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD).decode("utf-8", "replace")
    reader = _MetaReader()
    reader.feed(head.partition("</head>")[0])
    return reader.found


class _MetaReader(HTMLParser):
    """Collects the named `meta` elements of hv15."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        name, content = given.get("name"), given.get("content")
        if tag == "meta" and name and content is not None and name.startswith("hv15."):
            self.found[name] = content
