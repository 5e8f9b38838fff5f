"""Merges finished LoRAs into weights: while a model is loaded, from file to file, or in a model in memory.

The sum is computed in fp32 and rounded once to the weights' number format, quantised or not. A merged LoRA costs no
time in sampling but is rounded; an applied one (`apply_lora`) is exact.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from hv15 import __version__
from hv15.choices import PublishedLayout
from hv15.errors import UserError
from hv15.lora.changes import WeightChange, read_changes
from hv15.lora.files import read_lora
from hv15.lora.reach import EVERYWHERE, Reach
from hv15.lora.weighted import WeightedLoRA, listed, naming
from hv15.models.dit_files import merge_dit
from hv15.models.weights.fingerprint import model_fingerprint
from hv15.models.weights.fp8_writer import Fp8Writer
from hv15.models.weights.patches import Patch, check_targets
from hv15.models.weights.quantised import QuantisedLinear
from hv15.records.metadata import MERGED, MERGED_BASE, VERSION


def merge_patch(
    state_dict: Mapping[str, Tensor], multiplier: float = 1.0, *, name: str = "LoRA", reach: Reach = EVERYWHERE
) -> Patch:
    """Make a LoRA of any layout, as `read_lora` returns it, into a patch for `load_dit` and `merge_dit`.

    Args:
        state_dict: matrices (rows, columns) and alphas ().
        multiplier: strength in addition to alpha/rank; 0 is exactly no LoRA.
        name: its file, for messages.
        reach: on which layers it acts, and its factors there.

    Raises:
        UserError: keys or kinds are unknown, a pattern matches nothing, or a factor is for some steps only.
    """
    changes = read_changes(state_dict)
    strengths = {module: multiplier * reach.factor_in_all_steps(module) for module in reach.layers([*changes])}
    return _LoRAPatch(name, changes, strengths)


def merge_patches(loras: Iterable[WeightedLoRA]) -> list[Patch]:
    """Read LoRAs into patches that merge them into weights while these are loaded, see `load_dit`.

    Raises:
        UserError: a file cannot be used.
    """
    patches = []
    for lora in loras:
        if lora.multiplier != 0:
            state_dict, _ = read_lora(lora.path)
            with naming(lora.path):
                patches.append(merge_patch(state_dict, lora.multiplier, name=str(lora.path), reach=lora.reach))
    return patches


@torch.no_grad()
def merge_lora(dit: nn.Module, state_dict: Mapping[str, Tensor], multiplier: float = 1.0) -> int:
    """Merge a LoRA into the weights of a model in memory; quantised weights are rounded a second time.

    Args:
        dit: the model, with the official module names.
        state_dict: a LoRA of any layout: matrices (rows, columns) and alphas ().
        multiplier: strength in addition to alpha/rank.

    Returns:
        The number of linear layers that it changes.

    Raises:
        UserError: keys or kinds are unknown, the model lacks a module, has another size or weights cast to fp8 without
            scales, or lycoris-lora is missing.
    """
    patch = merge_patch(state_dict, multiplier)
    layers = check_targets(dit, patch.shapes)
    for layer in layers.values():
        if not isinstance(layer, QuantisedLinear) and layer.weight.dtype.itemsize < 2:
            raise UserError(
                f"LoRA: cannot be merged into a {type(layer).__name__} layer in {layer.weight.dtype}",
                hint="merge into the bf16 checkpoint, or use the LoRA unmerged",
            )
    for name, layer in layers.items():
        if isinstance(layer, QuantisedLinear):
            layer.quantise_(patch(name, layer.dequantised()))
        else:
            layer.weight.copy_(patch(name, layer.weight.float()))
    return len(layers)


def merge_to_file(
    dit_path: Path,
    loras: Sequence[WeightedLoRA],
    output: Path,
    *,
    layout: PublishedLayout = "official",
    dtype: torch.dtype | None = None,
    fp8: Fp8Writer | None = None,
    shard_bytes: int | None = None,
) -> float:
    """Merge LoRAs into a transformer's weights and write a checkpoint whose metadata says what it was made from.

    Args:
        layout, dtype, fp8, shard_bytes: see `merge_dit`.

    Returns:
        The relative error of the changed weights by their rounding, see `merge_dit`.

    Raises:
        UserError: a file is missing, damaged, of an unknown layout, or does not fit the model.
    """
    metadata = _merge_provenance(dit_path, loras)  # finds a missing file before 16 GB are read
    patches = merge_patches(loras)
    return merge_dit(
        dit_path, output, patches, layout=layout, dtype=dtype, metadata=metadata, fp8=fp8, shard_bytes=shard_bytes
    )


def _merge_provenance(base: Path, loras: Iterable[WeightedLoRA]) -> dict[str, str]:
    """Return metadata that says how to make the merged checkpoint again.

    Raises:
        UserError: a file is missing, or a LoRA is not the planned one.
    """
    merged = listed(loras)
    source = {"file": base.name, "fingerprint": model_fingerprint(base)}
    return {MERGED: merged, MERGED_BASE: json.dumps(source, ensure_ascii=False), VERSION: __version__}


class _LoRAPatch:
    """The changes of a LoRA, with its strengths. Some depend on the weight, so the order of several LoRAs matters."""

    def __init__(self, name: str, changes: Mapping[str, WeightChange], strengths: Mapping[str, float]) -> None:
        self.name, self.changes, self.strengths = name, changes, strengths
        self.shapes = {module: change.shape for module, change in changes.items()}

    def __call__(self, module: str, weight: Tensor) -> Tensor:
        strength = self.strengths.get(module, 0.0)
        return self.changes[module].merged(weight, strength) if strength else weight
