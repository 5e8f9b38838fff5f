"""Whether both branches of guidance run as one batch (`sample.guidance_batch`).

The results are the same up to rounding, not to the bit: products of other sizes are summed in another order. So `auto`
depends only on the size of the video and the kind of device, and `by_memory` is replaced in the sample's spec by what
was chosen: a file that was made by memory says `batched` or `two_pass`, and has the bytes which that choice gives.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, NamedTuple

from hv15.choices import GuidanceBatch
from hv15.sample.prompts import SampleSpec
from hv15.units import size

if TYPE_CHECKING:
    import torch

    from hv15.models import DiTConfig

BATCHED_TOKENS = 8192
"""Most latent cells for which `auto` is one batch; with more, one branch fills a GPU, and saves memory."""

log = logging.getLogger(__name__)


class Inputs(NamedTuple):
    """What decides how much a sample's pass needs."""

    config: DiTConfig
    """Of the transformer."""
    tokens: int
    """Text and glyph tokens of the longer branch."""
    lora_bytes: int
    """Of the LoRA files that are used; they are copied to the device in the first pass."""


Need = Callable[[SampleSpec, Inputs], int]
"""Bytes that one batch of both branches needs beside the transformer's weights, which are loaded."""


def batches(setting: GuidanceBatch, latent_size: tuple[int, int, int], *, gpu: bool) -> bool:
    """Return whether both branches are one batch as far as that is known beforehand; `by_memory` counts as two passes.

    Args:
        latent_size: latent frames, rows, columns.
    """
    if setting == "auto":
        return gpu and prod(latent_size) <= BATCHED_TOKENS
    return setting == "batched"


def settled(spec: SampleSpec, inputs: Inputs, need: Need, free: Callable[[], int]) -> SampleSpec:
    """Return a spec with what its guidance by memory comes to; any other as it is.

    Args:
        need: is asked only if the memory decides.
        free: the bytes that are free for the sample.
    """
    if spec.guidance_batch != "by_memory" or not spec.guided:
        return spec
    needed, there = need(spec, inputs), free()
    choice: GuidanceBatch = "batched" if needed <= there else "two_pass"
    words = "both branches as one batch" if choice == "batched" else "one branch after the other"
    log.info(
        "%s: guidance_batch: %s: %s, as one batch needs %s and %s are free",
        spec.name, choice, words, size(needed), size(there),
    )  # fmt: skip
    return replace(spec, guidance_batch=choice)


def made_by(spec: SampleSpec) -> list[SampleSpec]:
    """Return what files may say that are made by a spec: with guidance by memory, what that came to."""
    if spec.guidance_batch != "by_memory":
        return [spec]
    return [spec, replace(spec, guidance_batch="batched"), replace(spec, guidance_batch="two_pass")]


def free_memory(device: torch.device) -> int:
    """Return the bytes of a device that a sample can have: on a GPU also what torch holds without using it."""
    if device.type == "cuda":
        return _free_on_gpu(device)
    import psutil

    return int(psutil.virtual_memory().available)


def _free_on_gpu(device: torch.device) -> int:
    import torch

    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + held
