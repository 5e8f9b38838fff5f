"""What a sample can be written as: each output with its file's ending, and which of them a config may ask for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from hv15.records.paths import ProjectPaths


@dataclass(frozen=True)
class SampleOutput:
    """One file or folder of a sample."""

    name: str
    """It is decoded by the rule `sample_<name>`."""
    suffix: str
    """Its file is the sample's name with this ending."""
    is_folder: bool = False
    is_decoded: bool = True
    """Whether it holds pixels, which people can look at."""

    @property
    def rule(self) -> str:
        return f"sample_{self.name}"

    def path(self, paths: ProjectPaths, sample: str) -> Path:
        """Its file; `sample` may be a wildcard in braces."""
        return paths.samples / f"{sample}{self.suffix}"


VIDEO = SampleOutput("video", ".mp4")
IMAGES = SampleOutput("images", ".frames", is_folder=True)
ANIMATION = SampleOutput("animation", ".animation.png")
"""An animated PNG: lossless, and it plays in a browser and in a README."""
LATENTS = SampleOutput("latents", ".latents.safetensors", is_decoded=False)

OUTPUTS = (VIDEO, IMAGES, ANIMATION, LATENTS)
DECODED = tuple(output for output in OUTPUTS if output.is_decoded)

OutputType: TypeAlias = Literal["video", "images", "animation", "latent", "both"]
"""What a config may ask for; `both` are a video and its latents."""

OUTPUT_TYPES: dict[OutputType, tuple[SampleOutput, ...]] = {
    "video": (VIDEO,),
    "images": (IMAGES,),
    "animation": (ANIMATION,),
    "latent": (LATENTS,),
    "both": (VIDEO, LATENTS),
}
"""`sample.output_type` -> what is written, what can be looked at first."""


def output_of(path: Path) -> SampleOutput | None:
    """The output that a file's ending tells; None for no sample's."""
    return next((output for output in OUTPUTS if path.name.endswith(output.suffix)), None)
