"""What a run says, kept for later: the output of a run that `hv15 run` starts is a file, of others there is a copy."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from hv15.environment import OUTPUT_VARIABLE
from hv15.own_files import open_own


class OutputCopy:
    """Keeps in a file what Snakemake shows in the terminal, and has its jobs add what they say.

    What was logged before it begins comes first. Where a logger plugin shows Snakemake's messages in its own way, only
    the jobs are heard.
    """

    def __init__(self) -> None:
        self._early: list[logging.LogRecord] | None = []
        self._copy: logging.Handler | None = None

    def begin(self, path: Path) -> None:
        """Write from now on.

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
