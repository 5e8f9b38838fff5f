"""Text from files, names and programs as plain text, without anything that a terminal would obey.

Names, captions, keys, metadata and log lines are written by others. Printed raw, they can set the terminal's title,
fill the clipboard, wipe the screen, or show `gnp.exe` as `exe.png`. Commands print through `cleaned`, the dashboard
calls `visible` and `clean`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

LONGEST = 4096
"""Characters of a line that are shown."""

ESCAPES = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*[@-~]"  # colours and cursor movements
    rb"|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?"  # titles, links
    rb"|[ -/]*[0-~])?"
)
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ufeff]")
"""Control characters, also those that change the direction of writing."""


def clean(line: str | bytes) -> str:
    """Return one line as a person would finally see it: of a progress bar, its last state."""
    data = line.encode("utf-8", "surrogateescape") if isinstance(line, str) else line
    if b"\x1b" in data:
        data = ESCAPES.sub(b"", data)
    if b"\r" in data:
        data = next((part for part in reversed(data.split(b"\r")) if part.strip()), b"")
    if b"\b" in data:
        data = _without_overwritten(data[: 4 * LONGEST])
    cut = len(data) > 4 * LONGEST
    text = data[: 4 * LONGEST].decode("utf-8", "replace").expandtabs(8)
    text = _CONTROL.sub("", text)
    if cut or len(text) > LONGEST:
        return f"{text[:LONGEST]} …"
    return text


def _without_overwritten(data: bytes) -> bytes:
    """Let each backspace remove the character before it."""
    while (shorter := re.sub(rb"[^\x08]\x08", b"", data)) != data:
        data = shorter
    return data.replace(b"\b", b"")


_SIGNS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
_SIGNS[0x7F] = 0x2421
# The other controls that terminals obey, and direction marks, have no sign. A blank of a private plane stands for each,
# so that a caption keeps them when it is edited.
_DIRECTION_MARKS = (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF)
_SIGNS |= {code: 0x100000 + code for code in (*range(0x80, 0xA0), *_DIRECTION_MARKS)}
_CODES = {sign: code for code, sign in _SIGNS.items()}
_RETURN = ord("\r")
_BAR_SIGNS = {code: sign for code, sign in _SIGNS.items() if code != _RETURN}
_LINE_SIGNS = _SIGNS | {0x0A: 0x240A}


def visible(text: str) -> str:
    """Give control characters a sign of their own (escape: \u241b), so that no terminal obeys what a file says."""
    return text.translate(_SIGNS)


def one_line(text: str) -> str:
    """The same, with signs for line ends too, so that a name or a key cannot start a new line."""
    return text.translate(_LINE_SIGNS)


def original(text: str) -> str:
    """Undo `visible`."""
    return text.translate(_CODES)


def json_text(value: object) -> str:
    """A value as indented JSON in ASCII, with everything that a terminal would obey escaped."""
    return json.dumps(value, indent=1).replace("\x7f", "\\u007f")


class CleanStream:
    """A text stream that makes each text `visible` and writes it to another stream."""

    _signs = _SIGNS

    def __init__(self, stream: TextIO) -> None:
        self.raw = stream
        """The other stream, for what hv15 itself draws, such as a bar."""

    def write(self, text: str) -> int:
        self.raw.write(text.translate(self._signs))
        return len(text)

    def writelines(self, lines: Iterator[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> object:
        return getattr(self.raw, name)


class CleanMessages(CleanStream):
    """The same for stderr: once the terminal or the reader is gone, writing does nothing and raises nothing.

    Carriage returns pass, which the progress bars of other packages need.
    """

    _signs = _BAR_SIGNS

    def write(self, text: str) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self.raw.flush()


@contextmanager
def cleaned() -> Iterator[None]:
    """While active, clean everything that is printed to stdout and stderr."""
    before = sys.stdout, sys.stderr
    if before[0] is not None:  # None: it was closed before the program began
        sys.stdout = CleanStream(before[0])
    if before[1] is not None:
        sys.stderr = CleanMessages(before[1])
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
