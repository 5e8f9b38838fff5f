"""Arguments of the stages, which the rules of the workflow call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from hv15.arguments import Argument, Entry, Group
from hv15.commands.options.base import SettingsCommand
from hv15.out_of_memory import StageName
from hv15.records.paths import ProjectPaths


@dataclass(frozen=True, kw_only=True)
class Encode(SettingsCommand):
    """Encoding of one kind."""

    shard: Annotated[int | None, Argument("one shard only (all)")] = None
    expect: Annotated[str, Argument("stop unless the shard needs exactly this", metavar="DIGEST")] = ""
    out: Annotated[Path | None, Argument("the shard's manifest (its place in the cache)")] = None


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
class Report(SettingsCommand):
    """Report on one kind."""

    out: Annotated[Path | None, Argument("the report file (its place in the cache)")] = None


@dataclass(frozen=True, kw_only=True)
class ReportLatents(Report):
    """Of latents."""

    name: ClassVar[str] = "latents"

    def run(self) -> None:
        from hv15.commands.encode import report_latents

        report_latents(self)


@dataclass(frozen=True, kw_only=True)
class ReportTexts(Report):
    """Of texts."""

    name: ClassVar[str] = "texts"

    def run(self) -> None:
        from hv15.commands.encode import report_texts

        report_texts(self)


@dataclass(frozen=True, kw_only=True)
class Spec(SettingsCommand):
    """Spec of one product."""

    attempt: Annotated[int, Argument("counts how often the workflow has tried")] = 1
    out: Annotated[Path, Argument("the spec file")]


@dataclass(frozen=True, kw_only=True)
class SpecSample(Spec):
    """Of a sample."""

    name: ClassVar[str] = "sample"
    prompt: Annotated[str, Argument("the prompt's name", flags=("--name",))]
    denoising: Annotated[bool, Argument("only the part that its latents depend on")] = False

    def run(self) -> None:
        from hv15.commands.sample import write_spec

        write_spec(self)


@dataclass(frozen=True, kw_only=True)
class SpecTrain(Spec):
    """Of the training."""

    name: ClassVar[str] = "train"

    def run(self) -> None:
        from hv15.commands.train import write_spec

        write_spec(self)


@dataclass(frozen=True, kw_only=True)
class SpecProducts(Spec):
    """Of the finished LoRA: what belongs to it."""

    name: ClassVar[str] = "products"

    def run(self) -> None:
        from hv15.commands.sample import write_products

        write_products(self)


@dataclass(frozen=True, kw_only=True)
class Train(SettingsCommand):
    """Train the LoRA, or resume from its last state."""

    name: ClassVar[str] = "train"
    stage: ClassVar[StageName | None] = "train"
    spec: Annotated[Path | None, Argument("stop unless the training depends on exactly this")] = None
    out: Annotated[Path, Argument("the LoRA file")] = ProjectPaths().trained

    def run(self) -> None:
        from hv15.commands.train import train

        train(self)


@dataclass(frozen=True, kw_only=True)
class SampleCondition(SettingsCommand):
    """Encode the first image of an i2v sample."""

    name: ClassVar[str] = "condition"
    stage: ClassVar[StageName | None] = "condition"
    spec: Annotated[Path, Argument("the sample's .json file")]
    out: Annotated[Path, Argument("the encoded image")]

    def run(self) -> None:
        from hv15.commands.sample import condition

        condition(self)


@dataclass(frozen=True, kw_only=True)
class SampleDenoise(SettingsCommand):
    """Make the latents of a sample."""

    name: ClassVar[str] = "denoise"
    stage: ClassVar[StageName | None] = "denoise"
    spec: Annotated[Path, Argument("the sample's .json file")]
    lora: Annotated[Path | None, Argument("the trained LoRA; without it the base model samples")] = None
    condition: Annotated[Path | None, Argument("the encoded first image (i2v)")] = None
    out: Annotated[Path, Argument("the latents file")]

    def run(self) -> None:
        from hv15.commands.sample import denoise

        denoise(self)


@dataclass(frozen=True, kw_only=True)
class SampleDecode(SettingsCommand):
    """Turn latents into a video or images."""

    name: ClassVar[str] = "decode"
    stage: ClassVar[StageName | None] = "decode"
    spec: Annotated[Path | None, Argument("the sample's .json file (what the latents say themselves)")] = None
    latents: Annotated[
        Path, Argument("a .latents.safetensors file; enough by itself", flags=("--latents", "--latent_path"))
    ]
    out: Annotated[Path, Argument("the video, or the folder of images")]

    def run(self) -> None:
        from hv15.commands.sample import decode

        decode(self)


@dataclass(frozen=True, kw_only=True)
class SampleSheet(SettingsCommand):
    """All samples in one picture, and what the LoRA changed."""

    name: ClassVar[str] = "sheet"
    out: Annotated[Path, Argument("the picture")] = ProjectPaths().contact_sheet

    def run(self) -> None:
        from hv15.commands.sheet import draw

        draw(self)


STAGE_COMMANDS: tuple[Entry, ...] = (
    Group("encode", "encode clips or texts into the store", (EncodeLatents, EncodeTexts)),
    Group("report", "list what was encoded and what was left out, and why", (ReportLatents, ReportTexts)),
    Group("spec", "write down what a training or a sample depends on", (SpecSample, SpecTrain, SpecProducts)),
    Train,
    Group(
        "sample",
        "encode an i2v image, denoise, decode",
        (SampleCondition, SampleDenoise, SampleDecode, SampleSheet),
        metavar="STEP",
    ),
)
