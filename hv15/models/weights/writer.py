"""Writes .safetensors files tensor by tensor, so that a 16 GB model is never in memory twice."""

from __future__ import annotations

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


def write_checkpoint(
    path: Path, described: Mapping[str, Tensor], tensor: Callable[[str], Tensor], metadata: Mapping[str, str]
) -> None:
    """Write one .safetensors file atomically; equal tensors and metadata give equal bytes.

    Args:
        described: dtype and shape of each tensor to write, as tensors [...], e.g. on the meta device.
        tensor: returns the tensor of a name on the CPU; called when it is written.

    Raises:
        UserError: the disk is full or the file cannot be written.
    """
    header: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    # The format requires tensors to be aligned to their element size, so the widest come first.
    names = sorted(described, key=lambda name: (-described[name].element_size(), name))
    for name in names:
        start, end = end, end + described[name].nbytes
        shape = list(described[name].shape)
        header[name] = {"dtype": _NAMES[described[name].dtype], "shape": shape, "data_offsets": [start, end]}
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little"))
        file.write(raw)
        for name in names:
            value = tensor(name)
            if value.shape != described[name].shape or value.dtype != described[name].dtype:
                raise ValueError(f"{name} is {value.dtype} {list(value.shape)}, described as {described[name]}")
            file.write(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
