"""Model files on a command line, instead of those of a project."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from hv15.arguments import Argument
from hv15.choices import ENLARGING_ROLES, ROLES, Role
from hv15.commands.options.base import SettingsCommand

MODEL_FILES = "model files, instead of the project's"
"""The heading of these options in a command's help."""


@dataclass(frozen=True, kw_only=True)
class TransformerFileCommand(SettingsCommand):
    """A command that takes the file of the transformer."""

    dit: Annotated[Path | None, Argument("the transformer", heading=MODEL_FILES)] = None


@dataclass(frozen=True, kw_only=True)
class ModelFilesCommand(SettingsCommand):
    """A command that takes files of the models of samples, and of those that make them larger."""

    vae: Annotated[Path | None, Argument("the VAE", heading=MODEL_FILES)] = None
    text_encoder: Annotated[Path | None, Argument("Qwen2.5-VL", heading=MODEL_FILES)] = None
    tokenizer: Annotated[Path | None, Argument("its tokenizer", heading=MODEL_FILES)] = None
    glyph_encoder: Annotated[Path | None, Argument("ByT5", heading=MODEL_FILES)] = None
    image_encoder: Annotated[Path | None, Argument("SigLIP (i2v)", heading=MODEL_FILES)] = None
    sr_dit: Annotated[Path | None, Argument("the transformer of super resolution", heading=MODEL_FILES)] = None
    upsampler: Annotated[Path | None, Argument("its latent upsampler", heading=MODEL_FILES)] = None

    @property
    def model_files(self) -> dict[Role, Path]:
        """Those that were given; each option is called as the role."""
        given = {role: getattr(self, role, None) for role in (*ROLES, *ENLARGING_ROLES)}
        return {role: path for role, path in given.items() if isinstance(path, Path)}
