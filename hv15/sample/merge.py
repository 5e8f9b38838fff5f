"""A checkpoint with LoRAs built in, for programs that take no LoRA (`save_merged_model`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.models.dit_files import merge_dit
from hv15.sample.loras import WeightedLoRA, merge_patches
from hv15.sample.provenance import merge_provenance

if TYPE_CHECKING:
    import torch

    from hv15.models.layouts import Layout


def merge_to_file(
    dit_path: Path,
    loras: Sequence[WeightedLoRA],
    output: Path,
    *,
    layout: Layout = "official",
    dtype: torch.dtype | None = None,
) -> None:
    """Add LoRAs to a transformer's weights and write the result as a checkpoint that says what it was made from.

    Args:
        layout: names of the written tensors; dtype: theirs, None keeps the file's (plain numbers instead of fp8).

    Raises:
        UserError: a file is missing, damaged, of an unknown layout, or does not fit the model.
    """
    metadata = merge_provenance(dit_path, loras)  # a missing file is found out before 16 GB are read
    merge_dit(dit_path, output, merge_patches(loras), layout=layout, dtype=dtype, metadata=metadata)
