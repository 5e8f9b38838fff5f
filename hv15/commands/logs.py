"""The stages log to stderr, which the rules write into a log file."""

from __future__ import annotations

import logging
import sys

from hv15.ranks import is_first_rank
from hv15.terminal_text import one_line, visible


def log_to_stderr(level: str) -> None:
    """Show hv15's messages of this level and above, one plain line each; of other libraries only warnings.

    Of several processes that work together, all but the first show only errors.
    """
    shown = logging.StreamHandler(sys.stderr)
    shown.setFormatter(_Plain("%(message)s"))
    logging.basicConfig(handlers=[shown], level=logging.WARNING)
    logging.getLogger("hv15").setLevel(level.upper() if is_first_rank() else logging.ERROR)


class _Plain(logging.Formatter):
    """Nothing that a terminal would obey. Messages of hv15, which quote names of files, are one line each."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        message = super().formatMessage(record)
        return one_line(message) if record.name.partition(".")[0] == "hv15" else message
