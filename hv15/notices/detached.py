"""Starts to follow a run as a process that belongs to no other: `python -m hv15.notices.detached PROJECT RUN`

Whoever kills all processes of the run, those that it has started too, does not find it. So it leaves them at once,
before it loads what it needs.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path


def detach() -> None:
    """Go on in a child whose parent has ended. A request to stop the run does not reach it."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if os.fork():
        os._exit(0)


if __name__ == "__main__":
    detach()
    from hv15.notices.watch import main

    main(Path(sys.argv[1]), sys.argv[2])
