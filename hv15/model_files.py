"""Where a project's model files are, and by which identity they enter the digests.

The identity of a file that a person gives is its fingerprint. Files that the workflow makes or downloads do not exist
when it is planned, so their identity is declared: the demo's recipe version, or repository, revision and path.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hv15.config import Settings
from hv15.data.digest import short
from hv15.errors import UserError
from hv15.models.fingerprint import FingerprintCache, model_fingerprint
from hv15.models.variants import detect_variant

Role = Literal["dit", "vae", "text_encoder", "tokenizer", "glyph_encoder", "image_encoder"]

ROLES: tuple[Role, ...] = ("dit", "vae", "text_encoder", "tokenizer", "glyph_encoder", "image_encoder")


@dataclass(frozen=True)
class ModelFiles:
    """The files of one project."""

    settings: Settings
    fingerprints: FingerprintCache

    def path(self, role: Role) -> Path | str:
        """The file or folder of a model. The tokenizer may be a Hub name instead: a string.

        Raises:
            UserError: the config names no file for the role.
        """
        models = self.settings.models
        folder = self.settings.resolve(models.directory)
        if models.source == "demo":
            from hv15.demo.layout import DEMO_FILES

            return folder / DEMO_FILES[role]
        if models.source == "hub":
            from hv15.models.hub import hub_files

            return hub_files(self.settings)[role].local
        given = getattr(models, role)
        if given is None:
            raise UserError(
                f"models.{role} is not set, but task {self.settings.task} needs it",
                hint=f"set models.{role} to the file's path, or models.source to hub to download it",
            )
        resolved = self.settings.resolve(given)
        return str(given) if role == "tokenizer" and not resolved.exists() else resolved

    def identity(self, role: Role) -> str:
        """What stands for the model in a digest.

        Raises:
            UserError: the file is missing or is not a checkpoint.
        """
        if self.settings.models.source == "demo":
            from hv15.demo.layout import DEMO_VERSION

            return f"demo:{DEMO_VERSION}:{role}"
        if self.settings.models.source == "hub":
            from hv15.models.hub import hub_files

            file = hub_files(self.settings)[role]
            return f"hub:{file.repo}@{self.settings.models.revision}:{file.path}"
        path = self.path(role)
        if isinstance(path, str):
            return f"hub:{path}"
        if not path.exists():
            raise UserError(
                f"models.{role}: {path} does not exist",
                hint="correct the path in config.yaml, or set models.source to hub to download the file",
            )
        if role == "tokenizer":
            return short([[file.name, file.read_bytes().hex()] for file in sorted(path.glob("*.json"))])
        return model_fingerprint(path, cache=self.fingerprints)

    @property
    def variant(self) -> str:
        """The checkpoint's name in the official list, as set or as its path says; it chooses the sampling defaults."""
        if self.settings.models.variant != "auto":
            return self.settings.models.variant
        found = None if self.settings.models.source == "demo" else detect_variant(self.path("dit"))
        return found or f"480p_{self.settings.task}"
