"""Arguments of `hv15 sample` and `hv15 upsample`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, TypeAlias

from hv15.arguments import Argument
from hv15.choices import EnlargedResolution, Enlarging
from hv15.commands.options.model_files import ModelFilesCommand, TransformerFileCommand
from hv15.commands.options.numbers import finite
from hv15.commands.options.reach import BlockFactors, ExcludePatterns, IncludePatterns, StepFactors
from hv15.commands.options.seeds import read_seed
from hv15.environment import CONFIG_VARIABLE
from hv15.out_of_memory import StageName
from hv15.records.outputs import OutputType

NamedProject: TypeAlias = Annotated[
    Path,
    Argument("a project's folder or config file (here)", flags=("--project", "--config"), variable=CONFIG_VARIABLE),
]
"""Where the command's positional arguments are something else than the project."""
OtherSettings: TypeAlias = Annotated[
    tuple[str, ...],
    Argument("any other setting, such as sample.quantize=fp8", flags=("--set",), metavar="NAME=VALUE", several="+"),
]


@dataclass(frozen=True, kw_only=True)
class Sample(ModelFilesCommand, TransformerFileCommand):
    """Make videos of prompts: encode them, denoise, decode, with each model loaded once.

    Models, memory options and defaults are those of a project; without one, of the model files that are given.
    """

    name: ClassVar[str] = "sample"
    stage: ClassVar[StageName | None] = "denoise"
    prompts: Annotated[
        tuple[str, ...],
        Argument("what the video shows; nothing in it is an option", positional=True, metavar="PROMPT", several="*"),
    ] = ()
    project: NamedProject = Path()
    latents: Annotated[
        tuple[Path, ...],
        Argument(
            "instead of prompts: kept latents files to decode, for which only the VAE is loaded",
            flags=("--latents", "--latent_path"),
            metavar="FILE",
            several="+",
        ),
    ] = ()
    prompts_file: Annotated[
        Path | None, Argument("a file of prompts: .yaml, .jsonl, or .txt with one a line; see sample.prompts_file")
    ] = None
    interactive: Annotated[
        bool, Argument("read prompts line by line, with all models kept in memory", flags=("-i", "--interactive"))
    ] = False
    out: Annotated[Path, Argument("the folder of the results", flags=("-o", "--out"))] = Path("out")
    lora: Annotated[
        tuple[str, ...], Argument("LoRAs, each at a strength (1)", metavar="FILE[:STRENGTH]", several="+")
    ] = ()
    include: IncludePatterns = ()
    exclude: ExcludePatterns = ()
    lora_blocks: BlockFactors = ()
    lora_steps: StepFactors = ()
    seed: Annotated[
        tuple[int, ...],
        Argument("a video of each prompt for each seed; `random` draws one", several="+", read=read_seed),
    ] = ()
    compare: Annotated[
        tuple[str, ...],
        Argument("LoRAs, each used in a column of its own of a sheet", metavar="FILE[:STRENGTH]", several="+"),
    ] = ()
    checkpoint: Annotated[
        tuple[int, ...],
        Argument("steps of the project's training, whose kept LoRAs are compared too", metavar="STEP", several="+"),
    ] = ()
    strength: Annotated[
        tuple[float, ...],
        Argument(
            "factors for the strength of the compared LoRAs, or of all; 0 leaves them out", several="+", read=finite
        ),
    ] = ()
    sheet: Annotated[
        bool, Argument("also draw all samples side by side, as a picture and a video; done if something is compared")
    ] = False
    size: Annotated[
        tuple[str, ...],
        Argument("a resolution with an aspect ratio, such as 720p 16:9, or height and width in pixels", several="+"),
    ] = ()
    frames: Annotated[int | None, Argument("number of frames, 4k+1")] = None
    steps: Annotated[int | None, Argument("denoising steps")] = None
    guidance: Annotated[float | None, Argument("guidance scale")] = None
    shift: Annotated[float | None, Argument("flow shift")] = None
    negative: Annotated[str | None, Argument("what the video does not show")] = None
    image: Annotated[Path | None, Argument("the first frame (i2v)")] = None
    fps: Annotated[float | None, Argument("frames per second of the file")] = None
    output_type: Annotated[OutputType | None, Argument("as sample.output_type")] = None
    sr: Annotated[
        Enlarging | None,
        Argument("also make each video larger by super resolution, as a file of its own (as sample.sr)"),
    ] = None
    no_metadata: Annotated[
        bool,
        Argument(
            "write nothing into videos and images about how they were made",
            flags=("--no-metadata", "--no_metadata"),
        ),
    ] = False
    settings: OtherSettings = ()

    def run(self) -> int | None:
        from hv15.commands.sample import sample

        return sample(self)


@dataclass(frozen=True, kw_only=True)
class Upsample(ModelFilesCommand):
    """Enlarge a finished video by super resolution, from 480p to 720p or from 720p to 1080p.

    A file of hv15 tells its prompt, seed and first image. Models and memory options are those of a project; without
    one, of the model files that are given.
    """

    name: ClassVar[str] = "upsample"
    file: Annotated[Path, Argument("a .latents.safetensors file, which loses nothing, or a video", positional=True)]
    project: NamedProject = Path()
    out: Annotated[
        Path | None, Argument("the result: .mp4, .latents.safetensors, ... (NAME.sr.mp4)", flags=("-o", "--out"))
    ] = None
    to: Annotated[EnlargedResolution | None, Argument("the resolution (as sample.sr)")] = None
    size: Annotated[
        tuple[str, ...], Argument("height and width in pixels (the official size for that of the file)", several="+")
    ] = ()
    prompt: Annotated[str | None, Argument("what the video shows (as the file says)")] = None
    image: Annotated[Path | None, Argument("its first image, for i2v (as the file says)")] = None
    seed: Annotated[int | None, Argument("of the noise (as the file says)")] = None
    steps: Annotated[int | None, Argument("denoising steps (6 for 720p, 8 for 1080p)")] = None
    shift: Annotated[float | None, Argument("flow shift (2)")] = None
    lora: Annotated[
        tuple[str, ...], Argument("LoRAs for super resolution itself", metavar="FILE[:STRENGTH]", several="+")
    ] = ()
    settings: OtherSettings = ()

    def run(self) -> int | None:
        from hv15.commands.upsample import upsample

        return upsample(self)
