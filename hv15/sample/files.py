"""The files between the stages of a sample: the encoded first frame, and the denoised latents."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hv15.errors import UserError
from hv15.models.weights.writer import write_checkpoint
from hv15.records.json_values import RecordError, parse_object
from hv15.records.metadata import SAMPLE
from hv15.sample.prompts import SampleSpec

LATENTS = {"latents": 4}
"""`<name>.latents.safetensors`: [C, F', h, w], unscaled float32."""

CONDITION = {"latents": 4, "vision": 2}
"""`<name>.condition.safetensors`, i2v: [C, 1, h, w], unscaled, and SigLIP's states [729, 1152]; float32."""

MOST_NAMED = 3
"""The most tensors of a wrong file that a message names."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors of any shape and text metadata atomically; equal content gives equal bytes.

    Raises:
        UserError: the disk is full or the file cannot be written.
    """
    stored = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
    write_checkpoint(path, stored, stored.__getitem__, metadata)


def read_tensors(path: Path, names: Mapping[str, int], made_by: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file of `write_tensors` and check it.

    Args:
        names: the tensors that it must hold, with the number of axes of each.
        made_by: the command that writes such files, for the error's hint.

    Raises:
        UserError: the file is missing or damaged, holds other tensors, or holds NaN.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = dict(sorted((file.metadata() or {}).items()))  # safetensors returns them in random order
    except (OSError, SafetensorError) as error:
        raise UserError.at(path, f"not readable: {error}", hint=f"run {made_by} again, which writes it") from error
    found = {name: tensor.ndim for name, tensor in tensors.items()}
    if found != dict(names):
        first = ", ".join(f"{name} ({axes} axes)" for name, axes in sorted(found.items())[:MOST_NAMED])
        more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
        wanted = ", ".join(f"{name} ({axes} axes)" for name, axes in names.items())
        raise UserError.at(
            path,
            f"holds {first or 'no tensors'}{more}; expected {wanted}",
            hint=f"use a file that {made_by} wrote",
        )
    if broken := [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]:
        raise UserError.at(path, f"{broken[0]} holds NaN or infinity", hint=f"run {made_by} again, which writes it")
    return tensors, metadata


def read_latents(path: Path) -> tuple[Tensor, SampleSpec, dict[str, str]]:
    """Read a sample's latents: unscaled float32 [C, F', h, w], the spec, and all metadata.

    Raises:
        UserError: the file cannot be used, or does not say how it was made.
    """
    tensors, metadata = read_tensors(path, LATENTS, "hv15 sample")
    if SAMPLE not in metadata:
        raise UserError.at(
            path, "does not say how the latents were made", hint="use a <name>.latents.safetensors of hv15"
        )
    return tensors["latents"], _spec(path, metadata[SAMPLE]), metadata


def _spec(path: Path, text: str) -> SampleSpec:
    try:
        return SampleSpec.from_json(parse_object(text), source=str(path))
    except RecordError as error:
        raise UserError.at(path, f"how it was made is {error}", hint="sample it again") from error
