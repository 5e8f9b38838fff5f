"""Makes one stage of the demo's base: `python -m demo_base STAGE` in a clone. `snakemake demo/base` makes all."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import get_args

import torch

from demo_base.stages import Stage, run_stage
from hv15.commands.logs import log_to_stderr
from hv15.errors import UserError


def main() -> int:
    parser = argparse.ArgumentParser("demo_base", description=__doc__)
    parser.add_argument("stage", choices=get_args(Stage))
    parser.add_argument(
        "--work", type=Path, default=Path("demo/pretraining"), help="folder of all intermediate results"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo/base"), help="folder of the finished models (stage base)"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (1); more change the rounding")
    options = parser.parse_args()
    log_to_stderr("info")
    logging.getLogger("demo_base").setLevel(logging.INFO)
    torch.set_num_threads(options.threads)
    try:
        run_stage(options.stage, options.work, options.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
