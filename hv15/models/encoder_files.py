"""Reading the checkpoints of the three encoders, whose networks are transformers' own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hv15.errors import UserError
from hv15.models.checkpoint import MODEL_SIZES, Checkpoint, check_keys, load_into
from hv15.models.layouts import looks_like

if TYPE_CHECKING:
    import torch
    from torch import nn


def written_config(checkpoint: Checkpoint, model_type: str) -> dict[str, Any]:
    """Return the config, in transformers' names, in the file's metadata or in the config.json of its folder.

    A config.json whose model_type does not begin with `model_type` belongs to another model in the folder: {}.
    """
    if MODEL_SIZES in checkpoint.metadata:
        return json.loads(checkpoint.metadata[MODEL_SIZES])
    config = checkpoint.config
    return config if str(config.get("model_type", "")).startswith(model_type) else {}


def fill(
    model: nn.Module,
    checkpoint: Checkpoint,
    names: Mapping[str, str],
    *,
    unused: tuple[str, ...],
    what: str,
    dtype: torch.dtype | None,
    device: torch.device | str,
) -> None:
    """Fill a meta model strictly, reading only the tensors that it has.

    Args:
        names: for each name of the model's state dict, the tensor in the checkpoint.
        unused: beginnings of the names that may be there and are not read.

    Raises:
        UserError: tensors missing, of another shape or not finite; tensors neither needed nor known to be unused.
    """
    keys = checkpoint.keys()
    scales = [key for key in keys if key.endswith(("scale_weight", "weight_scale", "scaled_fp8"))]
    if scales:
        raise UserError(
            f"{checkpoint.path}: quantised weights with scales ({scales[0]}), which are not read here",
            hint="use the bf16 or fp16 file of the same model",
        )
    needed = set(names.values())
    found = [key for key in keys if key in needed or not key.startswith(unused)]
    check_keys(names.values(), found, checkpoint.path, what=what)
    pairs = ((name, checkpoint.tensor(key)) for name, key in names.items())
    load_into(model, pairs, dtype=dtype, device=device, where=checkpoint.path)


def wrong_model(checkpoint: Checkpoint, wanted: str, hint: str) -> UserError:
    """Return the error for a checkpoint of another model; it says what the file looks like."""
    return UserError(f"{checkpoint.path}: not {wanted}: it looks like {looks_like(checkpoint.keys())}", hint=hint)
