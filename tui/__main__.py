"""`python -m tui [PROJECT]`: the dashboard."""

from __future__ import annotations

import sys
from pathlib import Path

from hv15.errors import UserError
from tui.app import main

if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path()))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
