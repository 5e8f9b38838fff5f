"""Writes .safetensors files tensor by tensor, so that a 16 GB model is never in memory twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from hv15.atomic import atomic_path

_NAMES = {
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int64: "I64",
}


SHARD_INDEX = "{stem}.safetensors.index.json"


def write_checkpoint(
    path: Path, described: Mapping[str, Tensor], tensor: Callable[[str], Tensor], metadata: Mapping[str, str]
) -> None:
    """Write one .safetensors file atomically; equal tensors and metadata give equal bytes.

    Args:
        described: dtype and shape of each tensor to write, as tensors [...], e.g. on the meta device.
        tensor: returns the tensor of a name on the CPU; called when it is written, in the order of `described`.

    Raises:
        UserError: the disk is full or the file cannot be written.
    """
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    starts, end = {}, 0
    # The format requires tensors to be aligned to their element size, so the widest come first.
    for name in _in_file(described):
        starts[name], end = end, end + described[name].nbytes
        shape = list(described[name].shape)
        offsets = [starts[name], end]
        header[name] = {"dtype": _NAMES[described[name].dtype], "shape": shape, "data_offsets": offsets}
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little"))
        file.write(raw)
        for name in described:
            value = tensor(name)
            if value.shape != described[name].shape or value.dtype != described[name].dtype:
                raise ValueError(f"{name} is {value.dtype} {list(value.shape)}, described as {described[name]}")
            file.seek(8 + len(raw) + starts[name])
            file.write(_bytes_of(value))


def data_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 (hex) of the data of a file of these tensors, which are on the CPU, without its header."""
    hasher = hashlib.sha256()
    for name in _in_file(tensors):
        hasher.update(_bytes_of(tensors[name]))
    return hasher.hexdigest()


def _in_file(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names in the order of the file."""
    return sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))


def _bytes_of(tensor: Tensor) -> memoryview:
    data: memoryview = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data
    return data


def write_shards(
    folder: Path,
    stem: str,
    described: Mapping[str, Tensor],
    tensor: Callable[[str], Tensor],
    metadata: Mapping[str, str],
    *,
    shard_bytes: int,
) -> list[Path]:
    """Write a folder of .safetensors files with an index, as Hugging Face's libraries do; see `write_checkpoint`.

    Args:
        stem: of the names of the files.
        shard_bytes: the most bytes of tensors in a file, unless one tensor is larger.

    Returns:
        The files.

    Raises:
        UserError: the disk is full or a file cannot be written.
    """
    shards: list[list[str]] = [[]]
    size = 0
    for name, value in described.items():
        if shards[-1] and size + value.nbytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += value.nbytes
    names = [f"{stem}-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    for file, shard in zip(names, shards, strict=True):
        write_checkpoint(folder / file, {name: described[name] for name in shard}, tensor, metadata)
    weight_map = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
    index = {"metadata": {"total_size": sum(value.nbytes for value in described.values())}, "weight_map": weight_map}
    with atomic_path(folder / SHARD_INDEX.format(stem=stem)) as temporary:
        temporary.write_text(json.dumps(index, indent=2), encoding="utf-8")
    return [folder / file for file in names]
