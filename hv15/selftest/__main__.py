"""`python -m hv15.selftest`: the same as `hv15 selftest`, from an unpacked tree."""

import sys

from hv15.cli import main

if __name__ == "__main__":
    sys.exit(main(["selftest", *sys.argv[1:]]))
