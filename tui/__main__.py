"""`python -m tui [PROJECT]`: the dashboard, as `hv15 tui` opens it."""

from __future__ import annotations

import sys

from hv15.cli import main

if __name__ == "__main__":
    sys.exit(main(["tui", *sys.argv[1:]]))
