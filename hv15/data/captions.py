"""Captions: text files beside the media, or rows of a JSONL file."""

from __future__ import annotations

import codecs
import hashlib
import os


def caption_key(text: str) -> str:
    """Return the name of a caption's encoding: the sha256 (hex) of its UTF-8 text, after prefix and suffix rules."""
    return hashlib.sha256(text.encode()).hexdigest()


def read_caption(path: str) -> str:
    """Return a caption file's text without surrounding white space.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: it is not UTF-8; the message says at which byte.
    """
    # os.open and os.read take a third of the time of open(): a dataset may have 100,000 of these files.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        data = os.read(handle, 1 << 16)
        while len(data) >= 1 << 16 and (more := os.read(handle, 1 << 20)):
            data += more
    finally:
        os.close(handle)
    return decode_text(data).strip()


def decode_text(data: bytes) -> str:
    """Decode UTF-8, with or without a byte order mark.

    Raises:
        ValueError: it is not UTF-8; the message says at which byte.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError("not UTF-8 but UTF-16")
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        offset = error.start + (len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0)
        raise ValueError(f"not UTF-8: byte 0x{error.object[error.start]:02x} at offset {offset}") from error
