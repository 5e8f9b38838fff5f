"""Arguments of the stages, which the rules of the workflow call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, TypeAlias

from hv15.arguments import Argument, Entry, Group
from hv15.choices import EnlargedResolution, Enlarging
from hv15.commands.options.base import SettingsCommand
from hv15.commands.options.model_files import MODEL_FILES, ModelFilesCommand
from hv15.commands.options.reach import BlockFactors, ExcludePatterns, IncludePatterns, StepFactors
from hv15.commands.options.seeds import read_seed
from hv15.environment import CONFIG_VARIABLE
from hv15.out_of_memory import StageName
from hv15.records.outputs import OutputType
from hv15.records.paths import ProjectPaths

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
class Encode(SettingsCommand):
    """Encoding of one kind."""

    shard: Annotated[int | None, Argument("one shard only (all)")] = None
    spec: Annotated[Path | None, Argument("stop unless the shard needs exactly this")] = None
    out: Annotated[Path | None, Argument("the shard's manifest (its place in the project)")] = None


@dataclass(frozen=True, kw_only=True)
class EncodeLatents(Encode):
    """Clips: VAE, and SigLIP for i2v."""

    name: ClassVar[str] = "latents"
    stage: ClassVar[StageName | None] = "encode latents"

    def run(self) -> None:
        from hv15.commands.encode import latents

        latents(self)


@dataclass(frozen=True, kw_only=True)
class EncodeTexts(Encode):
    """Captions and prompts: Qwen, ByT5."""

    name: ClassVar[str] = "texts"
    stage: ClassVar[StageName | None] = "encode texts"

    def run(self) -> None:
        from hv15.commands.encode import texts

        texts(self)


@dataclass(frozen=True, kw_only=True)
class EncodeMasks(Encode):
    """Masks of clips: weights of latent positions."""

    name: ClassVar[str] = "masks"

    def run(self) -> None:
        from hv15.commands.encode import masks

        masks(self)


@dataclass(frozen=True, kw_only=True)
class Report(SettingsCommand):
    """List what was encoded and what was left out, and why."""

    name: ClassVar[str] = "report"

    def run(self) -> None:
        from hv15.commands.encode import report

        report(self)


@dataclass(frozen=True, kw_only=True)
class Train(SettingsCommand):
    """Train the LoRA, or resume from its last state."""

    name: ClassVar[str] = "train"
    stage: ClassVar[StageName | None] = "train"
    spec: Annotated[Path | None, Argument("stop unless the training depends on exactly this")] = None
    out: Annotated[Path, Argument("the LoRA file")] = ProjectPaths().trained
    until: Annotated[
        int | None, Argument("save the state after this step and end, with exit code 3; the next call goes on")
    ] = None

    def run(self) -> int | None:
        from hv15.commands.train import train

        return train(self)


@dataclass(frozen=True, kw_only=True)
class Sample(ModelFilesCommand):
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
        Argument("factors for the strength of the compared LoRAs, or of all; 0 leaves them out", several="+"),
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
    dit: Annotated[Path | None, Argument("the transformer", heading=MODEL_FILES)] = None
    sr_dit: Annotated[Path | None, Argument("the transformer of super resolution", heading=MODEL_FILES)] = None
    upsampler: Annotated[Path | None, Argument("its latent upsampler", heading=MODEL_FILES)] = None
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
    sr_dit: Annotated[Path | None, Argument("the transformer of super resolution", heading=MODEL_FILES)] = None
    upsampler: Annotated[Path | None, Argument("its latent upsampler", heading=MODEL_FILES)] = None
    settings: OtherSettings = ()

    def run(self) -> int | None:
        from hv15.commands.upsample import upsample

        return upsample(self)


@dataclass(frozen=True, kw_only=True)
class SampleCondition(SettingsCommand):
    """Encode the first image of an i2v sample."""

    name: ClassVar[str] = "condition"
    stage: ClassVar[StageName | None] = "condition"
    spec: Annotated[Path | None, Argument("the stage's spec, as the planner writes it")] = None
    prompt: Annotated[str | None, Argument("a sample of the config, instead of a spec", flags=("--name",))] = None
    out: Annotated[Path, Argument("the encoded image")]

    def run(self) -> None:
        from hv15.commands.sample_stages import condition

        condition(self)


@dataclass(frozen=True, kw_only=True)
class SampleDenoise(SettingsCommand):
    """Make the latents of a sample."""

    name: ClassVar[str] = "denoise"
    stage: ClassVar[StageName | None] = "denoise"
    spec: Annotated[Path | None, Argument("the stage's spec, as the planner writes it")] = None
    prompt: Annotated[str | None, Argument("a sample of the config, instead of a spec", flags=("--name",))] = None
    lora: Annotated[Path | None, Argument("the trained LoRA; without it the base model samples")] = None
    condition: Annotated[Path | None, Argument("the encoded first image (i2v)")] = None
    out: Annotated[Path, Argument("the latents file")]

    def run(self) -> int | None:
        from hv15.commands.sample_stages import denoise

        return denoise(self)


@dataclass(frozen=True, kw_only=True)
class SampleUpsample(SettingsCommand):
    """Make the latents of a sample's larger version, by super resolution."""

    name: ClassVar[str] = "upsample"
    stage: ClassVar[StageName | None] = "upsample"
    spec: Annotated[Path, Argument("the stage's spec, as the planner writes it")]
    low: Annotated[Path | None, Argument("the latents of the small sample")] = None
    lora: Annotated[Path | None, Argument("the trained LoRA, if super resolution uses it")] = None
    condition: Annotated[Path | None, Argument("the first image, encoded at the large size (i2v)")] = None
    out: Annotated[Path, Argument("the latents file")]

    def run(self) -> int | None:
        from hv15.commands.sample_stages import upsample

        return upsample(self)


@dataclass(frozen=True, kw_only=True)
class SampleDecode(SettingsCommand):
    """Turn latents into a video or images."""

    name: ClassVar[str] = "decode"
    stage: ClassVar[StageName | None] = "decode"
    spec: Annotated[Path | None, Argument("the stage's spec (by default from the latents)")] = None
    latents: Annotated[
        Path | None, Argument("a .latents.safetensors file; all that is needed", flags=("--latents", "--latent_path"))
    ] = None
    out: Annotated[Path, Argument("the video, or the folder of images")]

    def run(self) -> None:
        from hv15.commands.sample_stages import decode

        decode(self)


@dataclass(frozen=True, kw_only=True)
class SampleShard(SettingsCommand):
    """Make several samples, as the planner has divided them; each model is loaded once."""

    name: ClassVar[str] = "shard"
    stage: ClassVar[StageName | None] = "denoise"
    spec: Annotated[Path, Argument("which samples, as the planner writes it")]
    out: Annotated[Path, Argument("the list of what failed; the samples wait beside it for their own jobs")]

    def run(self) -> int | None:
        from hv15.commands.sample_shard import make

        return make(self)


@dataclass(frozen=True, kw_only=True)
class SampleSheet(SettingsCommand):
    """All samples in one picture, and what the LoRA changed."""

    name: ClassVar[str] = "sheet"
    spec: Annotated[Path | None, Argument("what the picture is made from, to be written into it")] = None
    out: Annotated[Path, Argument("the picture")] = ProjectPaths().contact_sheet

    def run(self) -> None:
        from hv15.commands.sheet import draw

        draw(self)


@dataclass(frozen=True, kw_only=True)
class SampleGrid(SettingsCommand):
    """The samples of all checkpoints in one picture and in one video."""

    name: ClassVar[str] = "grid"
    spec: Annotated[Path, Argument("which samples, as the planner writes it")]
    out: Annotated[Path, Argument("the picture")] = ProjectPaths().checkpoint_sheet
    video: Annotated[Path, Argument("the video")] = ProjectPaths().checkpoint_film

    def run(self) -> None:
        from hv15.commands.sheet import draw_checkpoints

        draw_checkpoints(self)


@dataclass(frozen=True, kw_only=True)
class ExperimentsCompared(SettingsCommand):
    """The experiments beside one another: a page, tables, charts, samples."""

    name: ClassVar[str] = "comparison"
    spec: Annotated[Path, Argument("which experiments, as the planner writes it")]
    out: Annotated[Path, Argument("the page; the other files are beside it")] = ProjectPaths().comparison().page

    def run(self) -> None:
        from hv15.commands.compare_trainings import compare_experiments

        compare_experiments(self)


@dataclass(frozen=True, kw_only=True)
class ReportPage(SettingsCommand):
    """All results on one page that needs no other file."""

    name: ClassVar[str] = "report"
    spec: Annotated[Path | None, Argument("what the page is made from, to be written into it")] = None
    out: Annotated[Path, Argument("the page")] = ProjectPaths().report

    def run(self) -> None:
        from hv15.commands.reports import write_report

        write_report(self)


@dataclass(frozen=True, kw_only=True)
class WriteCard(SettingsCommand):
    """The model card of the published LoRA."""

    name: ClassVar[str] = "card"
    spec: Annotated[Path | None, Argument("what the card is made from, to be written into it")] = None
    out: Annotated[Path, Argument("the card")] = ProjectPaths().card

    def run(self) -> None:
        from hv15.commands.reports import write_card

        write_card(self)


@dataclass(frozen=True, kw_only=True)
class StepLoRA(SettingsCommand):
    """The LoRA after a step, from the copy that the training has kept."""

    name: ClassVar[str] = "lora"
    spec: Annotated[Path, Argument("which step, as the planner writes it")]
    out: Annotated[Path, Argument("the LoRA file")]

    def run(self) -> None:
        from hv15.commands.checkpoints import keep

        keep(self)


STAGE_COMMANDS: tuple[Entry, ...] = (
    Group("encode", "encode clips, texts or masks into the store", (EncodeLatents, EncodeTexts, EncodeMasks)),
    Report,
    Train,
    Sample,
    Upsample,
    Group(
        "stage",
        "one part of a sample: encode an i2v image, denoise, upsample, decode; several at once; the LoRA after a "
        "step; a report",
        (
            *(SampleCondition, SampleDenoise, SampleUpsample, SampleDecode, SampleShard),
            *(SampleSheet, SampleGrid, StepLoRA, ReportPage, WriteCard, ExperimentsCompared),
        ),
        metavar="STEP",
    ),
)
