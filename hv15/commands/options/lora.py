"""Arguments of the commands that make LoRAs from LoRAs or checkpoints, compare and verify them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

from hv15.arguments import Argument, Command, Entry, Group
from hv15.choices import LoRALayout, LoRAProgram
from hv15.commands.options.numbers import finite
from hv15.errors import UserError
from hv15.weighted_file import read_weighted_file

Precision = Literal["bf16", "fp16", "fp32"]


class Weighted(NamedTuple):
    """A file and its weight in a sum, given as FILE or FILE:WEIGHT."""

    path: Path
    weight: float


def _weighted(text: str) -> Weighted:
    try:
        path, weight = read_weighted_file(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(error.message) from error
    return Weighted(path, 1.0 if weight is None else weight)


def _range(text: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    last = last if dash else first
    if not all(number.isdecimal() and len(number) <= 4 for number in (first, last)) or int(last) < int(first):
        raise argparse.ArgumentTypeError(f"{text!r:.60}: expected a block or a range such as 0-19")
    return int(first), int(last)


@dataclass(frozen=True, kw_only=True)
class MadeLoRA(Command):
    """A command that writes a LoRA."""

    out: Annotated[Path, Argument("the file to write")]
    to: Annotated[LoRALayout | None, Argument("names of the file (those of the first)")] = None
    dtype: Annotated[Precision | None, Argument("number format of the matrices (that of the first)")] = None


@dataclass(frozen=True, kw_only=True)
class AddLoRAs(MadeLoRA):
    """The weighted sum of LoRAs of any layouts: exact, with the sum of their ranks, or at a rank with its error."""

    name: ClassVar[str] = "add"
    files: Annotated[
        tuple[Weighted, ...],
        Argument("FILE or FILE:WEIGHT", positional=True, metavar="FILE", several="+", read=_weighted),
    ]
    rank: Annotated[int | None, Argument("the nearest LoRA of this rank (exact)")] = None

    def run(self) -> None:
        from hv15.commands.lora import add

        add(self)


@dataclass(frozen=True, kw_only=True)
class ExtractLoRA(MadeLoRA):
    """The nearest LoRA to the difference of two transformer checkpoints, of any layouts."""

    name: ClassVar[str] = "extract"
    base: Annotated[Path, Argument("the checkpoint that the LoRA is for", positional=True)]
    tuned: Annotated[Path, Argument("the changed checkpoint", positional=True)]
    rank: Annotated[int, Argument("the highest rank")] = 32
    energy: Annotated[float | None, Argument("keep this share of the squared norm of each layer, up to --rank")] = None

    def run(self) -> None:
        from hv15.commands.lora import extract

        extract(self)


@dataclass(frozen=True, kw_only=True)
class ResizeLoRA(MadeLoRA):
    """The nearest LoRA of a rank, or with the smallest ranks that keep a share of the energy."""

    name: ClassVar[str] = "resize"
    file: Annotated[Path, Argument("the LoRA", positional=True)]
    rank: Annotated[int | None, Argument("the highest rank")] = None
    energy: Annotated[float | None, Argument("keep this share of the squared norm of each layer, such as 0.99")] = None

    def run(self) -> None:
        from hv15.commands.lora import resize

        resize(self)


@dataclass(frozen=True, kw_only=True)
class SplitLoRA(Command):
    """A file for each range of blocks, and one for the rest."""

    name: ClassVar[str] = "split"
    file: Annotated[Path, Argument("the LoRA", positional=True)]
    blocks: Annotated[
        tuple[tuple[int, int], ...], Argument("ranges such as 0-19 20-53", metavar="RANGE", several="+", read=_range)
    ]
    out: Annotated[Path, Argument("the folder to write into")] = Path()

    def run(self) -> None:
        from hv15.commands.lora import split

        split(self)


@dataclass(frozen=True, kw_only=True)
class ScaleLoRA(MadeLoRA):
    """A LoRA at another strength, exactly."""

    name: ClassVar[str] = "scale"
    file: Annotated[Path, Argument("the LoRA", positional=True)]
    factor: Annotated[float, Argument("by which its strength is multiplied", positional=True, read=finite)]
    only: Annotated[
        str | None, Argument("only layers in whose official name this regular expression is found (all)")
    ] = None

    def run(self) -> None:
        from hv15.commands.lora import scale

        scale(self)


@dataclass(frozen=True, kw_only=True)
class CastLoRA(MadeLoRA):
    """A LoRA in another number format, and what the rounding changes."""

    name: ClassVar[str] = "cast"
    file: Annotated[Path, Argument("the LoRA", positional=True)]

    def run(self) -> None:
        from hv15.commands.lora import cast

        cast(self)


@dataclass(frozen=True, kw_only=True)
class Compare(Command):
    """Compare two LoRAs, or two transformer checkpoints: norms by block, angles, the layers that differ."""

    name: ClassVar[str] = "compare"
    one: Annotated[Path, Argument("a LoRA or checkpoint", positional=True)]
    other: Annotated[Path, Argument("another of the same kind", positional=True)]
    base: Annotated[Path | None, Argument("for DoRA, GLoRA, OFT: the transformer that they are used on")] = None

    def run(self) -> None:
        from hv15.commands.lora import compare

        compare(self)


@dataclass(frozen=True, kw_only=True)
class Verify(Command):
    """Say what another program would do with a LoRA: which tensors it loads, drops or takes wrongly, and what to do.

    The exit code is 1 if anything would be lost or wrong.
    """

    name: ClassVar[str] = "verify"
    file: Annotated[Path, Argument("the LoRA", positional=True)]
    program: Annotated[LoRAProgram, Argument("the program", flags=("--for",))]
    keys: Annotated[bool, Argument("a line for each tensor")] = False

    def run(self) -> int:
        from hv15.commands.verify import verify

        return verify(self)


LORA_COMMANDS: tuple[Entry, ...] = (
    Verify,
    Compare,
    Group(
        "lora",
        "make LoRAs from others: add, extract, resize, split, scale, cast",
        (AddLoRAs, ExtractLoRA, ResizeLoRA, SplitLoRA, ScaleLoRA, CastLoRA),
        metavar="TOOL",
    ),
)
