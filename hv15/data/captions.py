"""Captions: text files beside the media, or rows of a JSONL file."""

from __future__ import annotations

import codecs
import hashlib
import os
from collections.abc import Sequence

MOST_CAPTION = 1 << 16
"""Most bytes of a caption. The text encoder reads 1000 tokens, which are about 5,000 bytes."""

_MARKS = {  # the longer ones first, because UTF-32's little-endian mark begins with UTF-16's
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_MARK_BYTES = tuple(_MARKS)

_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
"""Without O_NONBLOCK, opening a named pipe would block."""


def caption_key(text: str) -> str:
    """Return the key of a caption's encoding: the sha256 (hex) of its UTF-8 text, including prefix and suffix."""
    return hashlib.sha256(text.encode()).hexdigest()


def captions_key(keys: Sequence[str]) -> str:
    """Return the key of a list of captions: that of the only one, or the sha256 (hex) of all, of which order counts.

    Args:
        keys: of the captions, at least one.
    """
    return keys[0] if len(keys) == 1 else caption_key("\n".join(keys))


def read_caption(path: str) -> str:
    """Return a caption file's text, normalised by `plain`.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: it is not UTF-8 or is far too long; the message says what was found instead.
    """
    # A dataset may have 100,000 of these files, and os.open and os.read take a third of the time of open().
    handle = os.open(path, _FLAGS)
    try:
        data = os.read(handle, MOST_CAPTION + 1)
    finally:
        os.close(handle)
    if len(data) > MOST_CAPTION:
        raise ValueError(f"more than {MOST_CAPTION >> 10} KiB, expected a caption")
    return plain(decode_text(data))


def plain(caption: str) -> str:
    """Return a caption without surrounding white space and with Unix line ends, since every character is encoded."""
    if "\r" in caption:
        caption = caption.replace("\r\n", "\n").replace("\r", "\n")
    return caption.strip()


def decode_text(data: bytes) -> str:
    """Decode UTF-8, with or without a byte order mark.

    Raises:
        ValueError: it is not UTF-8 or holds NUL; the message says at which byte, and what it seems to be.
    """
    if data.startswith(_MARK_BYTES):
        raise ValueError(f"not UTF-8 but {next(name for mark, name in _MARKS.items() if data.startswith(mark))}")
    if 0 in data:
        raise ValueError(f"not UTF-8 but {_looks_like(data)}: NUL at offset {data.index(0)}")
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        offset = error.start + (len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0)
        raise ValueError(f"not UTF-8: byte 0x{error.object[error.start]:02x} at offset {offset}") from error


def _looks_like(data: bytes) -> str:
    """Guess the encoding of a text with NUL bytes: Latin letters have one in every two bytes, or three in four."""
    even, odd = data[0::2].count(0), data[1::2].count(0)
    if not even or not odd:
        return "UTF-16LE" if odd else "UTF-16BE"
    if data.count(0) * 2 > len(data) and len(data) % 4 == 0:
        return "UTF-32"
    return "binary data"
