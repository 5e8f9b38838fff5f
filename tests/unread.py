"""Streams that nobody reads any more, as descriptors for writing; the caller closes them."""

from __future__ import annotations

import os
import pty


def broken_pipe() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def closed_terminal() -> int:
    master, slave = pty.openpty()
    os.close(master)
    return slave
