"""The outputs that a sample can be written as, with their file names, and the choices in a config."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from hv15.records.paths import ProjectPaths


@dataclass(frozen=True)
class SampleOutput:
    """One file or folder of a sample."""

    name: str
    """The rule `sample_<name>` makes it; `checkpoint_<name>` makes that of a checkpoint."""
    suffix: str
    """The ending of its file name, after the sample's name."""
    is_folder: bool = False
    is_decoded: bool = True
    """Whether it holds pixels that people can view."""

    @property
    def rule(self) -> str:
        return self.rule_of(None)

    def rule_of(self, step: int | str | None) -> str:
        """Return the name of its rule: of the published LoRA's samples, or of those of the LoRA after a step."""
        return f"sample_{self.name}" if step is None else f"checkpoint_{self.name}"

    @property
    def enlarging_rule(self) -> str:
        """The name of its rule for samples that super resolution makes larger."""
        return f"upsample_{self.name}"

    def path(self, paths: ProjectPaths, sample: str, step: int | str | None = None) -> Path:
        """Return its file; `sample` and `step` may be wildcards in braces."""
        folder = paths.samples if step is None else paths.checkpoint(step)
        return folder / f"{sample}{self.suffix}"


VIDEO = SampleOutput("video", ".mp4")
IMAGES = SampleOutput("images", ".frames", is_folder=True)
ANIMATION = SampleOutput("animation", ".animation.png")
"""An animated PNG, which is lossless and plays in a browser and in a README."""
LATENTS = SampleOutput("latents", ".latents.safetensors", is_decoded=False)

OUTPUTS = (VIDEO, IMAGES, ANIMATION, LATENTS)
DECODED = tuple(output for output in OUTPUTS if output.is_decoded)

OutputType: TypeAlias = Literal["video", "images", "animation", "latent", "both", "latent_images"]
"""The choices in a config; `both` means a video and its latents, `latent_images` images and their latents."""

OUTPUT_TYPES: dict[OutputType, tuple[SampleOutput, ...]] = {
    "video": (VIDEO,),
    "images": (IMAGES,),
    "animation": (ANIMATION,),
    "latent": (LATENTS,),
    "both": (VIDEO, LATENTS),
    "latent_images": (IMAGES, LATENTS),
}
"""`sample.output_type` -> the outputs, those that can be viewed first."""


def decoded_outputs(output_type: OutputType) -> list[SampleOutput]:
    """Return the outputs of a choice that are decoded from latents."""
    return [output for output in OUTPUT_TYPES[output_type] if output.is_decoded]


def subject(sample: str, step: int | str | None = None) -> str:
    """Return what its stages and logs are named by, after the rule; `sample` and `step` may be wildcards in braces."""
    return sample if step is None else f"{step}.{sample}"


ENLARGED_SUFFIX = ".sr"
"""Stands after the name of a sample that super resolution has made larger. A prompt's own name has no dot."""


def enlarged(sample: str) -> str:
    """Return the name of a sample's larger version; `sample` may be a wildcard in braces."""
    return f"{sample}{ENLARGED_SUFFIX}"


def running_preview(folder: Path, sample: str) -> Path:
    """Return the small video that shows what a running sample becomes (`sample.preview_every_n_steps`).

    Args:
        folder: where the sample's latents will be. The video is in a hidden folder in it, so that nothing takes it for
            a sample.
        sample: its name.
    """
    return folder / ".running" / f"{sample}{VIDEO.suffix}"


def output_of(path: Path) -> SampleOutput | None:
    """Return the kind of output from a file's name; None if it is not of a sample."""
    return next((output for output in OUTPUTS if path.name.endswith(output.suffix)), None)
