"""`python -m hv15`: the `hv15` command. With -P before -m, Python files of the current folder are not imported."""

from __future__ import annotations

import sys

from hv15.cli import main

if __name__ == "__main__":
    sys.exit(main())
