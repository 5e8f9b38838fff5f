"""The paths of all files of a cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hv15.records.paths import EncodedKind


@dataclass(frozen=True)
class CachePaths:
    """The files of a cache, which any number of projects can share."""

    root: Path
    """The folder that `cache.directory` names."""

    def items(self, kind: EncodedKind) -> Path:
        """Return the folder of the encoded items of a kind, with a folder in it for each set of encoding settings."""
        return self.root / "store" / kind

    @property
    def projects(self) -> Path:
        """The folder of notes on the projects that use the store."""
        return self.root / "projects"

    @property
    def media_hashes(self) -> Path:
        return self.root / "index.json"

    @property
    def probed_media(self) -> Path:
        return self.root / "probed.json"

    @property
    def model_fingerprints(self) -> Path:
        return self.root / "fingerprints.json"

    @property
    def remote(self) -> Path:
        """The folder of copies from remote storage, by bucket and name."""
        return self.root / "remote"

    def fetched(self, name: str) -> Path:
        """Return the note that a remote file or folder is copied; `name` stands for its path there."""
        return self.remote / ".fetched" / f"{name}.json"

    def latent_colors(self, vae: str) -> Path:
        """Return the file of the linear map from a VAE's latents to colors (`hv15.sample.latent_colors`)."""
        return self.root / "latent-colors" / f"{vae}.safetensors"

    @property
    def token_counts(self) -> Path:
        return self.root / "tokens.json"
