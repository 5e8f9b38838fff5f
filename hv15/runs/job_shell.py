"""The shell in which the workflow's jobs run."""

from __future__ import annotations

import shlex
from pathlib import Path

SCRIPT = Path(__file__).with_name("job.sh")


def prefix() -> str:
    """Return what precedes each job's command, for Snakemake's `shell.prefix`, which formats it."""
    return f"set -euo pipefail; source {shlex.quote(str(SCRIPT))}; ".replace("{", "{{").replace("}", "}}")
