"""What a stage says goes to stderr, which the rules write into a log file."""

from __future__ import annotations

import logging
import sys


def log_to_stderr(level: str) -> None:
    """Show the messages of hv15 from `level` on, one plain line each; other libraries only from warnings on."""
    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.WARNING)
    logging.getLogger("hv15").setLevel(level.upper())
