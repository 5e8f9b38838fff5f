"""Pictures and videos inside a page, as data URLs, as long as the page does not become too large."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

MOST_OF_A_FILE = 8 * 2**20
"""Bytes of the largest file that is put into a page."""
MOST_OF_A_PAGE = 64 * 2**20
"""Bytes of all files that are put into a page."""
_TYPES = {".mp4": "video/mp4", ".png": "image/png", ".jpg": "image/jpeg"}


def data_url(content: bytes, suffix: str) -> str:
    """Return a file's content as a data URL; `suffix` is the end of its name, .mp4, .png or .jpg."""
    return f"data:{_TYPES[suffix]};base64,{base64.b64encode(content).decode()}"


@dataclass
class Inliner:
    """Puts files into a page, or links those that are too large."""

    folder: Path
    """Where the page will be, at which links start."""
    most_of_a_file: int = MOST_OF_A_FILE
    most_of_a_page: int = MOST_OF_A_PAGE
    linked: list[Path] = field(default_factory=list)
    """The files that were linked."""
    _used: int = 0

    def url(self, file: Path) -> str:
        """Return a data URL of a file, or else a link to it, relative to the page.

        Raises:
            OSError: it cannot be read.
        """
        size = file.stat().st_size
        if size > self.most_of_a_file or self._used + size > self.most_of_a_page:
            self.linked.append(file)
            return self.link(file)
        self._used += size
        return data_url(file.read_bytes(), file.suffix)

    def link(self, file: Path) -> str:
        """Return a link to a file, relative to the page."""
        return quote(Path(os.path.relpath(file, self.folder)).as_posix())
