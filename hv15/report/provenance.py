"""From what a LoRA was made: versions, digests, files, and the trainings that made it one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hv15.digest import digest, file_sha256
from hv15.records.json_values import JsonObject
from hv15.records.metadata import COMMIT, TRANSFORMER
from hv15.report.trained import TrainedLoRA
from hv15.units import size

_MODELS = {
    "dit": "Transformer",
    "vae": "VAE",
    "text_encoder": "Text encoder (Qwen2.5-VL)",
    "glyph_encoder": "Glyph encoder (ByT5)",
    "image_encoder": "Image encoder (SigLIP)",
    "tokenizer": "Tokenizer",
    "sr_dit": "Super resolution",
    "upsampler": "Latent upsampler",
}


@dataclass(frozen=True)
class ProvenanceRow:
    """One fact."""

    name: str
    value: str
    is_digest: bool = False


@dataclass(frozen=True)
class PublishedFile:
    """One file of the LoRA."""

    name: str
    size: str
    sha256: str


def provenance_rows(lora: TrainedLoRA | None, models: dict[str, str]) -> list[ProvenanceRow]:
    """Return the facts.

    Args:
        lora: None for a project that only samples.
        models: the identities of the models of the samples, by role.
    """
    return [*(_of_training(lora) if lora else ()), *_of_models(lora, models)]


def _of_training(lora: TrainedLoRA) -> Iterator[ProvenanceRow]:
    for name, version in lora.versions.items():
        yield ProvenanceRow(f"Version of {name}", version)
    if commit := lora.metadata.get(COMMIT):
        yield ProvenanceRow("Commit of hv15", commit, is_digest=True)
    if lora.summary is not None:
        yield ProvenanceRow("Device of the training", lora.summary.device)
    made_from: JsonObject = lora.made_from
    if made_from:
        yield ProvenanceRow("All that the LoRA depends on", digest(made_from), is_digest=True)
    dataset = made_from.get("dataset")
    if isinstance(dataset, dict):
        yield ProvenanceRow("Dataset", str(dataset.get("digest", "")), is_digest=True)
    for kind, name in (("latents", "Encoding of clips"), ("text", "Encoding of texts"), ("masks", "Encoding of masks")):
        if isinstance(found := made_from.get(kind), str):
            yield ProvenanceRow(name, found, is_digest=True)


def _of_models(lora: TrainedLoRA | None, models: dict[str, str]) -> Iterator[ProvenanceRow]:
    trained = lora.metadata.get(TRANSFORMER, "") if lora else ""
    if trained and trained != models.get("dit"):
        yield ProvenanceRow("Transformer of the training", trained, is_digest=True)
    for role, name in _MODELS.items():
        if identity := models.get(role):
            yield ProvenanceRow(name, identity, is_digest=True)


def published_files(files: Iterable[Path], folder: Path) -> list[PublishedFile]:
    """Return what is known of files, with their names relative to a folder; those that are missing are left out.

    Raises:
        OSError: one cannot be read.
    """
    return [
        PublishedFile(file.relative_to(folder).as_posix(), size(file.stat().st_size), file_sha256(file))
        for file in files
        if file.is_file()
    ]
