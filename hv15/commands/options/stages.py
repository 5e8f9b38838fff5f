"""Arguments of the stages, which the rules of the workflow call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from hv15.arguments import Argument, Entry, Group
from hv15.commands.options.base import SettingsCommand
from hv15.commands.options.sample import Sample, Upsample
from hv15.out_of_memory import StageName
from hv15.records.paths import ProjectPaths


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
