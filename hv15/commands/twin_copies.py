"""Jobs whose product another run has made: it is copied."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from hv15.atomic import atomic_folder, atomic_path
from hv15.project.metadata import product_made_from
from hv15.records.paths import average_of
from hv15.records.spec import Spec
from hv15.records.twins import twin_files
from hv15.terminal_text import one_line


def copy_twin(spec: Path | None, out: Path) -> Path | None:
    """Copy what the plan names as the same, if it is: made from what this is to be made from.

    Returns the file or folder that was copied; None if nothing was.

    Args:
        spec: of the job; without one, there is nothing to copy.
        out: the product; a LoRA's moving average stands beside it.

    Raises:
        UserError: the spec cannot be read, or the disk is full.
    """
    if spec is None:
        return None
    read = Spec.read(spec)
    twins = twin_files(read.details)
    if not twins or any(product_made_from(twin) != read.wanted for twin in twins):
        return None
    for twin, target in zip(twins, (out, average_of(out)), strict=False):
        if twin.is_dir():
            with atomic_folder(target) as folder:
                shutil.copytree(twin, folder, dirs_exist_ok=True)
        else:
            with atomic_path(target) as part:
                shutil.copyfile(twin, part)
    print(f"copied from {one_line(str(twins[0]))}, which is the same", file=sys.stderr)
    return twins[0]
