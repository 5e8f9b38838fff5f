"""Keeps a copy of a run's output. If `hv15 run` starts it, its output goes to a file anyway."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from hv15.environment import OUTPUT_VARIABLE
from hv15.own_files import open_own


class OutputCopy:
    """Writes to a file what Snakemake shows in the terminal, and lets its jobs add their output.

    Messages from before it begins come first. If a logger plugin shows Snakemake's messages in its own way, only the
    jobs' output is kept.
    """

    def __init__(self) -> None:
        self._early: list[logging.LogRecord] | None = []
        self._copy: logging.Handler | None = None

    def begin(self, path: Path) -> None:
        """Write to the file from now on.

        Raises:
            OSError: the file cannot be written.
        """
        from snakemake.logging import ColorizingTextHandler, logger

        early, self._early = self._early or [], None
        os.environ[OUTPUT_VARIABLE] = str(path.absolute())
        shown = next((each for each in logger.handlers if isinstance(each, ColorizingTextHandler)), None)
        descriptor = open_own(path, os.O_WRONLY | os.O_APPEND)
        stream = os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace", buffering=1)
        if shown is None:
            stream.close()
            return
        self._copy = ColorizingTextHandler(nocolor=True, stream=stream)
        self._copy.setFormatter(shown.formatter)
        for each in shown.filters:
            self._copy.addFilter(each)
        for record in early:
            self._copy.handle(record)

    def handle(self, record: logging.LogRecord) -> None:
        """Take what Snakemake logs."""
        if self._copy is not None:
            self._copy.handle(record)
        elif self._early is not None:
            self._early.append(record)
