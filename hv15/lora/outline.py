"""Outlines what a LoRA file changes, from its header and alphas alone: reads no matrix and does not need torch."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hv15.errors import UserError
from hv15.lora.kinds import (
    BASE_MAGNITUDE,
    MAGNITUDE,
    detect_lora_layout,
    group_parts,
    has_base_norms,
    unknown_keys,
)
from hv15.lora.names import ModulePlace, find_parts, place_of
from hv15.lora.peft import read_settings, strength_of, with_config_file
from hv15.models.weights.header import Header, read_header

_FACTORS = {
    "lora_up.weight": "lora_down.weight",
    "hada_w1_a": "hada_w1_b",
    "b1.weight": "b2.weight",
    "lokr_w1_a": "lokr_w1_b",
    "lokr_w2_a": "lokr_w2_b",
}
"""Matrices (rows, rank), and the matrices (rank, columns) with which they are multiplied."""
_SCALARS = {"F64": "<d", "F32": "<f", "F16": "<e", "BF16": "<H"}
"""Formats with which `struct` reads one number. BF16 is the upper half of an F32."""


@dataclass(frozen=True)
class ModuleOutline:
    """One module of a file: the parts of the model that it changes, and its tensors."""

    name: str
    """Its name in the file."""
    places: Mapping[str, ModulePlace]
    """The parts of the model: official names, with @0, @1, @2 for thirds. Joined q, k and v are three parts."""
    shapes: Mapping[str, tuple[int, ...]]
    """Shapes of its tensors, by part of the change ("lora_down.weight", ...)."""
    alpha: float | None
    """From an `.alpha` tensor or PEFT's metadata; None if neither has it."""

    def weight_shape(self) -> tuple[int, int | None] | None:
        """Return (out, in) of the weight that it changes; None where its tensors do not determine it."""
        if len(blocks := self.shapes.get("oft_blocks", ())) in (3, 4):
            return blocks[-3] * blocks[-2], None
        sides = [self._product(side) for side in ("lokr_w1", "lokr_w2")]
        if sides[0] is not None and sides[1] is not None:
            return sides[0][0] * sides[1][0], sides[0][1] * sides[1][1]
        found = (self._product(part) for part in ("lora_up.weight", "hada_w1", "diff", "b1.weight"))
        return next((shape for shape in found if shape is not None), None)

    def _product(self, name: str) -> tuple[int, int] | None:
        """Return rows and columns of a matrix or of the product of two; None if they are missing or not matrices."""
        first = name if name in self.shapes else f"{name}_a"
        left, right = (self.shapes.get(part, ()) for part in (first, _FACTORS.get(first, first)))
        return (left[0], right[1]) if len(left) == len(right) == 2 else None


def read_outline(path: Path) -> list[ModuleOutline]:
    """Read the modules of a LoRA file of any layout, in the file's order.

    Raises:
        UserError: the file is missing or damaged, not a LoRA of this model, or of a kind that cannot be used.
    """
    header = read_header(path)
    try:
        detect_lora_layout(header.entries)
        settings = read_settings(with_config_file(path, header.metadata))
        groups, unknown = group_parts(header.entries)
        modules = []
        for name, keys in groups.items():
            places = find_parts(name)
            if places is None:
                unknown.extend(keys.values())
                continue
            if has_base_norms(header.metadata) and MAGNITUDE in keys:
                keys[BASE_MAGNITUDE] = keys.pop(MAGNITUDE)
            shapes = {part: header.entries[key].shape for part, key in keys.items()}
            strength = strength_of(settings, name, shapes)
            alpha = read_scalar(header, keys["alpha"]) if "alpha" in keys else strength and strength.alpha
            modules.append(ModuleOutline(name, places, shapes, alpha))
        if unknown:
            raise unknown_keys(unknown, len(header.entries))
    except UserError as error:
        raise UserError.at(path, error.message, hint=error.hint) from error
    return modules


def changed_layers(path: Path) -> list[str]:
    """Return the official names of the linear layers that a LoRA file of any layout changes.

    Raises:
        UserError: as `read_outline`.
    """
    return [
        *dict.fromkeys(place_of(part, "official").module for module in read_outline(path) for part in module.places)
    ]


def read_scalar(header: Header, key: str) -> float | None:
    """Read a tensor of one element; None if it has more, or is in an unusual number format."""
    entry = header.entries[key]
    form = _SCALARS.get(entry.dtype)
    if form is None or entry.end - entry.start != struct.calcsize(form):
        return None
    with header.path.open("rb") as file:
        file.seek(8 + len(header.raw) + entry.start)
        data = file.read(struct.calcsize(form))
    if entry.dtype == "BF16":
        form, data = "<f", bytes(2) + data
    return float(struct.unpack(form, data)[0])
