"""Model files on a command line, instead of those of a project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

from hv15.arguments import Argument, Command
from hv15.choices import ENLARGING_ROLES, ROLES, Role

SuperResolutionFile: TypeAlias = Annotated[
    Path | None, Argument("the transformer of super resolution, instead of the project's")
]
UpsamplerFile: TypeAlias = Annotated[Path | None, Argument("its latent upsampler")]
VaeFile: TypeAlias = Annotated[Path | None, Argument("the VAE")]
TextEncoderFile: TypeAlias = Annotated[Path | None, Argument("Qwen2.5-VL")]
TokenizerFile: TypeAlias = Annotated[Path | None, Argument("its tokenizer")]
GlyphEncoderFile: TypeAlias = Annotated[Path | None, Argument("ByT5")]
ImageEncoderFile: TypeAlias = Annotated[Path | None, Argument("SigLIP (i2v)")]


def model_files(options: Command) -> dict[Role, Path]:
    """Return the model files that were given; each option is called as the role."""
    given = {role: getattr(options, role, None) for role in (*ROLES, *ENLARGING_ROLES)}
    return {role: path for role, path in given.items() if isinstance(path, Path)}
