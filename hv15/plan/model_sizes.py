"""Sizes of a project's models, from their files, or those of the published model while a file is not there."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from hv15.choices import EnlargedResolution, Role
from hv15.demo.layout import BASE, DEMO_FILES
from hv15.errors import UserError
from hv15.file_sizes import bytes_of
from hv15.models.super_resolution import SUPER_RESOLUTIONS
from hv15.project import Project

if TYPE_CHECKING:
    from hv15.models import DiTConfig, VAEConfig
    from hv15.models.text import TextConfig
    from hv15.models.upsamplers import Upsampler720Config, Upsampler1080Config
    from hv15.models.vision import VisionConfig

Sizes = TypeVar("Sizes")


def chosen_enlarging(project: Project) -> EnlargedResolution:
    """Return the resolution to which samples are made larger, also while the files that tell it are not there."""
    try:
        return project.models.super_resolution.resolution
    except UserError:
        asked = project.settings.sample.enlarging
        if asked in SUPER_RESOLUTIONS:
            return asked
        return "720p" if project.models.variant.startswith("480p") else "1080p"


class ModelSizes:
    """Reads each size once, when it is first needed, from the header of a file, for all runs with these models."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.assumed: list[Role] = []
        """Models whose files are missing or unreadable, so that the published sizes are assumed."""

    @cached_property
    def dit(self) -> DiTConfig:
        from hv15.models import DiTConfig
        from hv15.models.dit_sizes import read_config
        from hv15.models.weights.checkpoint import open_checkpoint

        return self._read("dit", lambda path: read_config(open_checkpoint(path)), DiTConfig)

    @cached_property
    def vae(self) -> VAEConfig:
        from hv15.models import VAEConfig
        from hv15.models.vae_layouts import detect_vae_layout, read_config
        from hv15.models.weights.checkpoint import open_checkpoint

        def read(path: Path) -> VAEConfig:
            checkpoint = open_checkpoint(path)
            return read_config(checkpoint, detect_vae_layout(checkpoint))

        return self._read("vae", read, VAEConfig)

    @cached_property
    def text_encoder(self) -> TextConfig:
        from hv15.models.text import TextConfig, read_text_config
        from hv15.models.weights.checkpoint import open_checkpoint

        return self._read("text_encoder", lambda path: read_text_config(open_checkpoint(path))[0], TextConfig)

    @cached_property
    def image_encoder(self) -> VisionConfig:
        from hv15.models.vision import VisionConfig, read_vision_config
        from hv15.models.weights.checkpoint import open_checkpoint

        return self._read("image_encoder", lambda path: read_vision_config(open_checkpoint(path))[0], VisionConfig)

    @cached_property
    def sr_dit(self) -> DiTConfig:
        """Of the transformer of super resolution."""
        from hv15.models import DiTConfig
        from hv15.models.dit_sizes import read_config
        from hv15.models.weights.checkpoint import open_checkpoint

        def published() -> DiTConfig:
            return DiTConfig(meanflow=True, low_resolution=True)

        return self._read("sr_dit", lambda path: read_config(open_checkpoint(path), super_resolution=True), published)

    @cached_property
    def upsampler(self) -> Upsampler720Config | Upsampler1080Config:
        """Of the latent upsampler; the published sizes are inferred (`hv15.models.upsamplers`)."""
        from hv15.models.upsampler_files import read_upsampler_config
        from hv15.models.upsamplers import Upsampler720Config, Upsampler1080Config
        from hv15.models.weights.checkpoint import open_checkpoint

        def published() -> Upsampler720Config | Upsampler1080Config:
            return Upsampler720Config() if chosen_enlarging(self.project) == "720p" else Upsampler1080Config()

        return self._read("upsampler", lambda path: read_upsampler_config(open_checkpoint(path)), published)

    def file_bytes(self, role: Role) -> int:
        """Bytes of the weights of a model on the disk; 0 if they are not there."""
        try:
            path = self._path(role)
        except UserError:
            return 0
        return bytes_of(path, "*.safetensors")

    def _read(self, role: Role, read: Callable[[Path], Sizes], published: Callable[[], Sizes]) -> Sizes:
        known = self.project.models.sizes
        try:
            path = self._path(role)
            if (role, path) not in known:
                known[role, path] = read(path)
            return cast("Sizes", known[role, path])
        except UserError:
            self.assumed.append(role)
            return published()

    def _path(self, role: Role) -> Path:
        path = self.project.models.path(role)
        if self.project.settings.models.source == "demo" and not path.exists():
            return BASE / Path(DEMO_FILES[role]).relative_to("demo")  # what the workflow will copy
        return path
