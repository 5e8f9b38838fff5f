"""`hv15 lora` and `hv15 compare`: LoRAs in, LoRAs or numbers out. What was lost is said on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.commands.files import TORCH_NAMES, check_target
from hv15.commands.options.lora import (
    AddLoRAs,
    CastLoRA,
    Compare,
    ExtractLoRA,
    MadeLoRA,
    ResizeLoRA,
    ScaleLoRA,
    SplitLoRA,
)
from hv15.errors import UserError
from hv15.patterns import PatternError, Searches
from hv15.terminal_text import one_line

if TYPE_CHECKING:
    from hv15.lora.comparison import Products
    from hv15.lora.toolbox import Written

_SHOWN = 10
"""How many of the layers that differ most are listed."""


def add(options: AddLoRAs) -> None:
    """Write the weighted sum of LoRAs.

    Raises:
        UserError: a file cannot be used.
    """
    from hv15.lora.toolbox import add_loras

    _check_rank(options.rank)
    out = _written(options, [file.path for file in options.files])
    _tell(add_loras([(file.path, file.weight) for file in options.files], out, rank=options.rank))


def extract(options: ExtractLoRA) -> None:
    """Write the nearest LoRA to the difference of two checkpoints.

    Raises:
        UserError: a file cannot be used.
    """
    from hv15.lora.toolbox import extract_lora

    _check_rank(options.rank)
    _check_energy(options.energy)
    out = _written(options, [options.base, options.tuned])
    _tell(extract_lora(options.base, options.tuned, out, rank=options.rank, energy=options.energy))


def resize(options: ResizeLoRA) -> None:
    """Write the nearest LoRA of another rank.

    Raises:
        UserError: a file cannot be used, or neither a rank nor a share of energy is given.
    """
    from hv15.lora.toolbox import resize_lora

    if options.rank is None and options.energy is None:
        raise UserError("neither --rank nor --energy is given", hint="give for example --rank 16 or --energy 0.99")
    _check_rank(options.rank)
    _check_energy(options.energy)
    _tell(resize_lora(options.file, _written(options, [options.file]), rank=options.rank, energy=options.energy))


def split(options: SplitLoRA) -> None:
    """Write a file for each range of blocks.

    Raises:
        UserError: a file cannot be used, or the ranges overlap.
    """
    from hv15.lora.toolbox import split_lora

    _tell(split_lora(options.file, options.blocks, options.out))


def scale(options: ScaleLoRA) -> None:
    """Write a LoRA at another strength.

    Raises:
        UserError: a file cannot be used, or the pattern is wrong.
    """
    from hv15.lora.toolbox import scale_lora

    out, searches, pattern = _written(options, [options.file]), Searches(), options.only
    try:
        chosen = (lambda part: searches.found(pattern, part)) if pattern is not None else (lambda part: True)
        _tell(scale_lora(options.file, options.factor, out, only=chosen))
    except PatternError as error:
        raise UserError(f"--only {pattern!r:.200}: {error}", hint="write it like img_attn or blocks.(1|2)") from error


def cast(options: CastLoRA) -> None:
    """Write a LoRA in another number format.

    Raises:
        UserError: a file cannot be used, or no format is given.
    """
    from hv15.lora.toolbox import cast_lora

    if options.dtype is None:
        raise UserError("--dtype is missing", hint="give bf16, fp16 or fp32")
    _tell(cast_lora(options.file, _written(options, [options.file])))


def compare(options: Compare) -> None:
    """Print how two files differ.

    Raises:
        UserError: a file cannot be used, or they are of different kinds.
    """
    from hv15.lora.comparison import compare as compare_files

    found = compare_files(options.one, options.other, options.base)
    print(f"{'':<14} {'first':>10} {'second':>10} {'cosine':>8} {'difference':>10}")
    for name, products in found.by_block().items():
        print(_row(name, products))
    print(_row("all", found.whole))
    for which, layers in zip(("first", "second"), found.only, strict=True):
        if layers:
            print(f"only the {which} changes {len(layers)} layers, first {', '.join(layers[:3])}")
    differing = found.most_different(_SHOWN)
    print("the layers that differ most:" if differing else "no layer differs")
    for layer, difference in differing:
        print(f"{difference:10.2e}  {layer}")


def _row(name: str, products: Products) -> str:
    one, other = products.norms
    cosine = "-" if products.cosine is None else f"{products.cosine:.4f}"
    return f"{name:<14} {one:10.4g} {other:10.4g} {cosine:>8} {products.difference:10.2e}"


def _written(options: MadeLoRA, sources: Iterable[Path]) -> Written:
    import torch

    from hv15.lora.toolbox import Written

    check_target(options.out, sources)
    dtype = None if options.dtype is None else getattr(torch, TORCH_NAMES[options.dtype])
    return Written(options.out, options.to, dtype)


def _check_rank(rank: int | None) -> None:
    if rank is not None and rank < 1:
        raise UserError(f"--rank {rank}: expected at least 1", hint="use for example --rank 32")


def _check_energy(energy: float | None) -> None:
    if energy is not None and not 0 < energy <= 1:
        raise UserError(f"--energy {energy:g}: expected a share above 0, up to 1", hint="use for example --energy 0.99")


def _tell(lines: Iterable[str]) -> None:
    for line in lines:
        print(one_line(line), file=sys.stderr)
