"""Arguments of the commands that turn files into files, and of the demo's parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from hv15.arguments import Argument, Command, Entry, Group
from hv15.choices import LoRALayout, PublishedLayout
from hv15.commands.options.base import SettingsCommand
from hv15.commands.options.numbers import finite
from hv15.commands.options.reach import BlockFactors, ExcludePatterns, IncludePatterns


@dataclass(frozen=True, kw_only=True)
class Convert(Command):
    """Rewrite a LoRA in another program's names."""

    name: ClassVar[str] = "convert"
    source: Annotated[Path, Argument("the LoRA to read", positional=True)]
    target: Annotated[Path, Argument("the file to write", positional=True)]
    to: Annotated[LoRALayout | None, Argument("(comfyui)")] = None
    reverse: Annotated[bool, Argument("back to hv15's own names; the same as --to kohya")] = False
    svd_rank: Annotated[int | None, Argument("for LoHa and LoKr: approximate by a LoRA of this rank")] = None
    base: Annotated[
        Path | None, Argument("for DoRA, GLoRA, OFT: the transformer that it is used on, on which its effect depends")
    ] = None

    def run(self) -> None:
        from hv15.commands.files import convert

        convert(self)


@dataclass(frozen=True, kw_only=True)
class Export(SettingsCommand):
    """Write a copy of a LoRA for another program, with what `convert:` says about it, and verify it."""

    name: ClassVar[str] = "export"
    lora: Annotated[Path, Argument("the LoRA to read")]
    out: Annotated[Path, Argument("the file to write")]
    to: Annotated[PublishedLayout, Argument("the program")]

    def run(self) -> None:
        from hv15.commands.files import export

        export(self)


@dataclass(frozen=True, kw_only=True)
class Ema(Command):
    """Average the LoRAs of several steps of a training, as if it had been done while it ran (power function EMA)."""

    name: ClassVar[str] = "ema"
    files: Annotated[
        tuple[Path, ...], Argument("its copies, two or more", positional=True, metavar="FILE", several="+")
    ]
    out: Annotated[Path, Argument("the file to write")]
    sigma_rel: Annotated[
        float, Argument("width of the average, as a part of the training: 0.05 for its end, up to 0.28 for all of it")
    ] = 0.2

    def run(self) -> None:
        from hv15.commands.files import ema

        ema(self)


@dataclass(frozen=True, kw_only=True)
class Merge(SettingsCommand):
    """Save the transformer with LoRAs merged into its weights (save_merged_model).

    The transformer is that of a project; without one, it is named by --dit.
    """

    name: ClassVar[str] = "merge"
    dit: Annotated[Path | None, Argument("the transformer, a file or a folder, instead of the project's")] = None
    lora: Annotated[
        tuple[str, ...], Argument("a LoRA, at a strength (1); may be given several times", metavar="FILE[:STRENGTH]")
    ]
    multiplier: Annotated[tuple[float, ...], Argument("the strengths, one for each --lora, instead", read=finite)] = ()
    include: IncludePatterns = ()
    exclude: ExcludePatterns = ()
    lora_blocks: BlockFactors = ()
    out: Annotated[Path, Argument("the file to write, or with --shard-size the folder")]
    layout: Annotated[PublishedLayout, Argument("names of the written tensors")] = "official"
    dtype: Annotated[
        Literal["bf16", "fp16", "fp32", "fp8"] | None,
        Argument("number format (the file's); fp8: the blocks' layers with scales, as ComfyUI reads it"),
    ] = None
    shard_size: Annotated[float | None, Argument("gigabytes in one file of several (one file)", read=finite)] = None

    def run(self) -> None:
        from hv15.commands.files import merge

        merge(self)


@dataclass(frozen=True, kw_only=True)
class Download(SettingsCommand):
    """Fetch model files from the Hub."""

    name: ClassVar[str] = "download"
    files: Annotated[
        tuple[Path, ...], Argument("the files to fetch (all that the config needs)", metavar="FILE", several="+")
    ] = ()

    def run(self) -> None:
        from hv15.commands.files import download

        download(self)


@dataclass(frozen=True, kw_only=True)
class DemoModels(SettingsCommand):
    """Its toy models, in the official file layouts."""

    name: ClassVar[str] = "models"

    def run(self) -> None:
        from hv15.commands.files import demo_models

        demo_models(self)


@dataclass(frozen=True, kw_only=True)
class DemoClips(SettingsCommand):
    """Its captioned clips."""

    name: ClassVar[str] = "clips"

    def run(self) -> None:
        from hv15.commands.files import demo_clips

        demo_clips(self)


FILE_COMMANDS: tuple[Entry, ...] = (
    Convert,
    Export,
    Ema,
    Merge,
    Download,
    Group(
        "demo",
        "bring the parts of the demo into the project",
        (DemoModels, DemoClips),
        metavar="PART",
    ),
)
