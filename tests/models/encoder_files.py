"""Checkpoint files for the encoder tests: golden weights in a user's layout, and full-size key lists without bytes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.testing import assert_close

from hv15.models.weights.checkpoint import Checkpoint
from hv15.models.weights.header import Header, TensorEntry
from hv15.records.metadata import MODEL_SIZES

GOLDEN = Path(__file__).parents[1] / "golden"
KEYS = Path(__file__).parents[1] / "keys"


def golden(name: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict]:
    """Return weights, inputs and outputs ("in/..", "out..") and config of a golden file."""
    with safe_open(GOLDEN / f"{name}.safetensors", framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in list(file.keys())}
        config = json.loads(file.metadata()["config"])
    vectors = {key: tensors.pop(key) for key in list(tensors) if key.startswith(("in/", "out"))}
    return tensors, vectors, config


def check_golden(single: torch.Tensor, exact: torch.Tensor, reference: torch.Tensor, spread: float) -> None:
    """Compare states with a reference that was computed in float32.

    Args:
        single, exact: ours in float32 and in float64.
        spread: what the reference's rounding makes. It is the distance to the exact states, the same on every
            processor. Ours in float32 may be off by four times as much: each processor sums in an order of its own.
    """
    assert single.dtype == reference.dtype == torch.float32
    assert_close(exact, reference.double(), atol=spread, rtol=0)
    assert_close(single.double(), exact, atol=4 * spread, rtol=0)


def write(path: Path, weights: dict[str, torch.Tensor], config: dict | None = None) -> Path:
    """Write a single-file checkpoint, its config in the metadata as our tiny models have it."""
    metadata = {MODEL_SIZES: json.dumps(config)} if config is not None else None
    save_file({key: value.contiguous() for key, value in weights.items()}, path, metadata=metadata)
    return path


def full_size(name: str) -> Checkpoint:
    """Return a checkpoint whose header is that of the real file (keys/NAME.json); its tensors are meta tensors."""
    content = json.loads((KEYS / f"{name}.json").read_text())
    shapes = dict(content["keys"])
    for pattern, words in content["_info"]["repeated"].items():
        count = int(re.match(r"(\d+) identical", words).group(1))
        first = {key: shape for key, shape in shapes.items() if key.startswith(pattern.replace("N", "0"))}
        for index in range(1, count):
            shapes |= {key.replace(".0.", f".{index}.", 1): shape for key, shape in first.items()}
    assert len(shapes) == content["_info"]["total_tensors"]
    entries = {key: TensorEntry("BF16", tuple(shape), 0, 0) for key, shape in shapes.items()}
    return MetaCheckpoint(Path(name), [Header(Path(name), b"", 0, entries)])


class MetaCheckpoint(Checkpoint):
    """Reads meta tensors and remembers what was read."""

    def __init__(self, path: Path, headers: list[Header]) -> None:
        super().__init__(path, headers)
        self.read: list[str] = []

    def tensor(self, key: str, rows: range | None = None, device: torch.device | str = "meta") -> torch.Tensor:
        self.read.append(key)
        return super().tensor(key, rows, device)


def count_parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
