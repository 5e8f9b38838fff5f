"""What a disk damages in a finished project, and what must be said about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hv15.records.paths import ProjectPaths
from tests.commands.workbench import LORA
from tests.hostile.entry import Hostile

PATHS = ProjectPaths(Path())
TRAIN = ("train", "--spec", str(PATHS.spec("train")), "--out", "results/again.safetensors")


def _item(kind: str, damage: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: _spoil(min(folder.glob(f"cache/store/{kind}/*/??/*.safetensors")), damage)


def _file(name: str, damage: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: _spoil(next(iter(sorted(folder.glob(name)))), damage)


def _spoil(file: Path, damage: Callable[[bytes], bytes]) -> None:
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert file.read_bytes() != whole


def _flipped(data: bytes) -> bytes:
    """One bit, in the middle of the last tensor: the file stays whole, and its numbers are numbers."""
    return data[:-64] + bytes([data[-64] ^ 1]) + data[-63:]


def _cut(data: bytes) -> bytes:
    return data[:-5]


def _next_step(data: bytes) -> bytes:
    """`"step": 2` is one bit from 3."""
    return data.replace(b'"step": 2', b'"step": 3')


DAMAGED: dict[str, tuple[Callable[[Path], None], tuple[str, ...], tuple[str, ...], int]] = {
    "a bit of an encoded clip": (_item("latents", _flipped), ("repair", "."), ("1 damaged or lost, 7 sound",), 0),
    "a bit of an encoded text": (_item("text", _flipped), ("repair", "."), ("1 damaged or lost, 7 sound",), 0),
    "an encoded clip, cut short": (_item("latents", _cut), ("repair", "."), ("1 damaged or lost, 7 sound",), 0),
    "a bit of a state": (
        _file("results/train/state/step-*2/state.json", _next_step),
        TRAIN,
        ("step-000002: cannot be used, skipped: state.json is damaged",),
        0,
    ),
    "a product, for the plan": (
        _file(LORA, _cut),
        ("why", "."),
        ("train the LoRA: train.safetensors cannot be read",),
        0,
    ),
    "a product, shown": (_file(LORA, _cut), ("show", LORA), (f"error: {LORA}: truncated: ",), 2),
    "a video, for the plan": (_file("results/samples/*.mp4", _cut), ("why", "."), ("one: one.mp4 cannot be read",), 0),
    "a list of what is encoded": (
        _file("results/manifests/**/*.json", _cut),
        ("why", "."),
        ("0-of-2.json: not JSON: ", "it is made again"),
        0,
    ),
    "a spec": (_file(str(PATHS.spec("train")), _cut), TRAIN, ("error: ", "train.json: "), 2),
}

INPUTS = {
    f"damage: {name}": Hostile(make, command, said, code, finished=True, seconds=20)
    for name, (make, command, said, code) in DAMAGED.items()
}
