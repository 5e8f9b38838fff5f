"""Reads, writes and converts LoRA files. They are checked when read, and equal content gives equal bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from hv15.atomic import atomic_path
from hv15.choices import LoRALayout
from hv15.errors import UserError
from hv15.lora.about import KOHYA_HASH, SHA256, About
from hv15.lora.adapters import cast_up
from hv15.lora.conversion import convert
from hv15.lora.kinds import BASE_MAGNITUDE, MAGNITUDE, detect_lora_layout, has_base_norms
from hv15.lora.peft import (
    ADAPTER_METADATA,
    CONFIG_FILE,
    WEIGHTS_FILE,
    adapter_config,
    with_alphas,
    with_config_file,
)
from hv15.models.dit_config import DiTConfig
from hv15.models.dit_files import LinearWeights
from hv15.models.layouts import looks_like
from hv15.models.weights.checkpoint import open_checkpoint
from hv15.models.weights.writer import data_sha256, write_checkpoint
from hv15.records.metadata import BASE_SIZES, DORA_NORM, KOHYA_BASE_NAME

ARCHITECTURE = "hunyuan-video-1.5/lora"


def save_lora(
    path: Path,
    state_dict: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    *,
    dtype: torch.dtype | None = None,
    hashed: bool = False,
) -> None:
    """Write a LoRA as safetensors, atomically; equal tensors and metadata give equal bytes.

    The magnitudes of a DoRA get the name that all programs use; the metadata says to which norms they are relative.

    Args:
        state_dict: matrices (rows, columns) and alphas ().
        dtype: the matrices are cast to it, alphas and magnitudes, which are near 1 times a norm, are not; None keeps
            each tensor's dtype.
        hashed: add the hashes of the tensors' bytes, by which other tools know a LoRA.

    Raises:
        UserError: the disk is full, the folder cannot be written, or a tensor holds NaN, infinity, or a number that is
            too large for `dtype`.
    """
    tensors = {}
    for key, tensor in state_dict.items():
        is_cast = dtype is not None and tensor.ndim and not key.endswith(f".{BASE_MAGNITUDE}")
        tensors[key] = tensor.detach().to("cpu", dtype if is_cast else tensor.dtype)
        if is_cast and not torch.isfinite(tensors[key]).all() and torch.isfinite(tensor).all():
            name, largest = str(dtype).removeprefix("torch."), tensor.abs().max().item()
            raise UserError.at(
                path, f"{key} holds {largest:.3g}, which is too large for {name}", hint="write bf16 or fp32 instead"
            )
    _refuse_nan(path, tensors, hint="lower the learning rate: the training diverged. The file was not written")
    metadata = {key: value for key, value in metadata.items() if key not in (DORA_NORM, SHA256, KOHYA_HASH)}
    named = _renamed(tensors, BASE_MAGNITUDE, MAGNITUDE)
    if named.keys() != tensors.keys():
        metadata[DORA_NORM] = "base"
    if hashed:
        found = data_sha256(named)
        metadata |= {SHA256: f"0x{found}", KOHYA_HASH: found}
    write_checkpoint(Path(path), named, named.__getitem__, metadata)


def read_lora(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors, including alphas from PEFT's metadata, and the metadata of a LoRA file of any layout.

    A DoRA's magnitudes are named by their norms (`hv15.lora.kinds`). Matrices (rows, columns) keep their dtype, except
    that 8-bit numbers become bf16, which is exact.

    Raises:
        UserError: the file is missing, a pickle, truncated, holds NaN, is not a LoRA of this model, or is of a kind
            that cannot be used.
    """
    path = Path(path)
    if path.is_dir() or not path.exists():
        kind = "a folder" if path.is_dir() else "no such file"
        raise UserError.at(path, f"{kind}; expected a LoRA file (.safetensors)", hint="check the path")
    checkpoint = open_checkpoint(path)
    try:
        detect_lora_layout(checkpoint.keys())
        plain = {key: cast_up(tensor) for key, tensor in checkpoint.tensors()}
        if has_base_norms(checkpoint.metadata):
            plain = _renamed(plain, MAGNITUDE, BASE_MAGNITUDE)
        state_dict = with_alphas(plain, with_config_file(path, checkpoint.metadata))
    except UserError as error:
        kind = looks_like(checkpoint.keys())
        if "a LoRA" not in kind and "unknown" not in kind:
            raise UserError.at(path, f"{kind}, not a LoRA", hint="use a LoRA; models belong in `models:`") from error
        raise UserError.at(path, error.message, hint=error.hint) from error
    _refuse_nan(path, state_dict, hint="use another file: this one is damaged, or its training diverged")
    return state_dict, dict(checkpoint.metadata)


def convert_file(
    source: Path,
    target: Path,
    to: LoRALayout = "comfyui",
    *,
    svd_rank: int | None = None,
    base: Path | None = None,
    about: About | None = None,
) -> dict[str, str]:
    """Convert a LoRA file; the new file keeps the source's metadata (hv15.*, ss_*, modelspec.*).

    Args:
        source, target: .safetensors files.
        to: the target layout.
        svd_rank: see `convert`.
        base: the transformer that the LoRA is used on, for kinds that depend on its weights.
        about: what the new file tells; None keeps what the source tells.

    Returns:
        The new file's metadata.

    Raises:
        UserError: as `read_lora`, `convert` and `save_lora`; the message names the file.
    """
    if to == "peft" and target.name != WEIGHTS_FILE:
        raise UserError.at(target, f"PEFT loads only {WEIGHTS_FILE}", hint="give a folder of its own and that name")
    state_dict, metadata = read_lora(source)
    weights = None if base is None else LinearWeights(base)
    try:
        converted, new_metadata = convert(state_dict, to, metadata=metadata, svd_rank=svd_rank, weights=weights)
    except UserError as error:
        raise UserError.at(source, error.message, hint=error.hint) from error
    if about is not None:
        new_metadata = about.metadata(new_metadata)
    save_lora(target, converted, new_metadata, hashed=True)
    if to == "peft":
        with atomic_path(target.parent / CONFIG_FILE) as temporary:
            temporary.write_text(adapter_config(new_metadata[ADAPTER_METADATA]), encoding="utf-8")
    return new_metadata


def kohya_metadata(
    *,
    rank: int | None,
    alpha: float | None,
    network_args: Mapping[str, object] | None = None,
    base: DiTConfig | None = None,
    base_name: str | None = None,
    resolution: str | None = None,
    steps: int | None = None,
    epochs: int | None = None,
    learning_rate: float | None = None,
    optimizer: str | None = None,
    seed: int | None = None,
    dropout: float | None = None,
    num_train_items: int | None = None,
) -> dict[str, str]:
    """Return the `ss_*` and `modelspec.*` fields that other tools show, without times, so equal runs give equal files.

    Args:
        rank, alpha: of all layers; None means that they differ.
        network_args: what else describes a network other than a plain LoRA.
        base: sizes of the base model.
        base_name: file name of its checkpoint, without the folder, which is private.
        resolution: "WIDTHxHEIGHT" of the largest bucket.
    """
    fields: dict[str, object] = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": ARCHITECTURE,
        "modelspec.implementation": "hv15",
        "modelspec.prediction_type": "flow",
        "modelspec.resolution": resolution,
        "ss_network_module": "hv15.lora",
        "ss_network_dim": "Dynamic" if rank is None else rank,
        "ss_network_alpha": "Dynamic" if alpha is None else alpha,
        "ss_network_args": json.dumps(network_args) if network_args else None,
        "ss_network_dropout": dropout,
        "ss_base_model_version": "hunyuan-video-1.5",
        KOHYA_BASE_NAME: base_name,
        "ss_steps": steps,
        "ss_num_epochs": epochs,
        "ss_learning_rate": learning_rate,
        "ss_optimizer": optimizer,
        "ss_seed": seed,
        "ss_num_train_items": num_train_items,
        BASE_SIZES: None if base is None else json.dumps(asdict(base), sort_keys=True),
    }
    return {key: str(value) for key, value in fields.items() if value is not None}


def _renamed(tensors: Mapping[str, Tensor], part: str, new: str) -> dict[str, Tensor]:
    """Rename the tensors of a part in all modules."""
    ending = f".{part}"
    return {
        f"{key.removesuffix(ending)}.{new}" if key.endswith(ending) else key: tensor for key, tensor in tensors.items()
    }


def _refuse_nan(path: Path, state_dict: Mapping[str, Tensor], *, hint: str) -> None:
    for key, tensor in state_dict.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UserError.at(path, f"{key} holds NaN or infinity", hint=hint)
