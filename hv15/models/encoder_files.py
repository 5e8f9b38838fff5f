"""Reading the checkpoints of the three encoders, whose networks are transformers' own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from hv15.choices import WeightFormat
from hv15.errors import UserError
from hv15.models.layouts import looks_like
from hv15.models.weights.checkpoint import Checkpoint, check_keys, load_into
from hv15.models.weights.recipe import Recipe
from hv15.models.weights.written import WrittenSizes, sizes_in_text
from hv15.records.metadata import MODEL_SIZES

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from hv15.models.weights.quantised import ScaledCodes


def written_config(checkpoint: Checkpoint, model_type: str) -> WrittenSizes:
    """Return the config, in transformers' names, in the file's metadata or in the config.json of its folder.

    A config.json whose model_type does not begin with `model_type` belongs to another model in the folder and is
    ignored.

    Raises:
        UserError: it is not a JSON object.
    """
    where = str(checkpoint.path)
    if MODEL_SIZES in checkpoint.metadata:
        return sizes_in_text(checkpoint.metadata[MODEL_SIZES], where)
    config = checkpoint.config
    return WrittenSizes(config if str(config.get("model_type", "")).startswith(model_type) else {}, where)


def fill(
    model: nn.Module,
    checkpoint: Checkpoint,
    names: Mapping[str, str],
    *,
    unused: tuple[str, ...],
    what: str,
    dtype: torch.dtype | None,
    device: torch.device | str,
    quantize: WeightFormat | None = None,
    quantised: Callable[[str], bool] = lambda name: False,
) -> None:
    """Load a checkpoint's tensors into a model on the meta device; every tensor must match.

    Args:
        names: for each name of the model's state dict, the tensor in the checkpoint.
        unused: prefixes of tensors that may be in the file and are not read.
        what: the model in words, for messages.
        dtype: of everything that is not quantised. None keeps the file's, also fp8 if `quantised` allows it.
        quantize: number format of the linear layers that `quantised` chooses by name.

    Raises:
        UserError: tensors are missing, of another shape, not finite, or neither needed nor known to be unused.
    """
    from hv15.models.weights.fp8_files import WeightReader
    from hv15.models.weights.quantised import Fp8Linear, ScaledCodes, check_weight_format, replace_linears

    reader = WeightReader(checkpoint, "", device)
    needed = set(names.values())
    found = [key for key in reader.names if key in needed or not key.startswith(unused)]
    check_keys(names.values(), found, checkpoint.path, what=what)
    if quantize is not None:
        check_weight_format(quantize, device)
        replace_linears(model, quantize, quantised)
    elif dtype is None:
        replace_linears(model, "fp8", lambda name: quantised(name) and reader.is_fp8(names[f"{name}.weight"]))

    def tensors() -> Iterator[tuple[str, Tensor | ScaledCodes]]:
        for name, key in names.items():
            value = reader.make(Recipe((key,)), dtype)
            if isinstance(value, ScaledCodes) and not isinstance(_owner(model, name), Fp8Linear):
                value = value.to(device).dequantised(dtype or reader.plain_dtype)
            yield name, value

    load_into(model, tensors(), dtype=dtype, device=device, where=checkpoint.path)


def _owner(model: nn.Module, name: str) -> nn.Module:
    return model.get_submodule(name.rpartition(".")[0])


def wrong_model(checkpoint: Checkpoint, wanted: str, hint: str) -> UserError:
    """Return the error for a checkpoint of another model, which says what the file looks like."""
    return UserError.at(checkpoint.path, f"not {wanted}: it looks like {looks_like(checkpoint.keys())}", hint=hint)
