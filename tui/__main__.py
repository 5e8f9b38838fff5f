"""`python -m tui [PROJECT]`: the dashboard, as `hv15 tui` opens it."""

from __future__ import annotations

import sys

from hv15.errors import UserError
from tui.launch import from_words

if __name__ == "__main__":
    try:
        sys.exit(from_words())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
