"""What a project has to encode, and which settings change the result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from hv15.cache.encoding import Encoding, NeededClips, NeededMask
from hv15.config import Settings, encoding_view
from hv15.data.captions import caption_key
from hv15.project.dataset import ProjectDataset, masked_source_key
from hv15.project.model_files import ModelFiles
from hv15.records import formats
from hv15.records.json_values import JsonObject
from hv15.records.paths import EncodedKind, ProjectPaths

Needed = TypeVar("Needed")


def latents_settings(settings: Settings, models: ModelFiles) -> JsonObject:
    """Everything that changes encoded clips: models, and each setting of `cache` that is not marked otherwise.

    Raises:
        UserError: a model file is missing.
    """
    i2v = settings.task == "i2v"
    return {
        "format": formats.LATENTS,
        "models.vae": models.identity("vae"),
        **({"models.image_encoder": models.identity("image_encoder")} if i2v else {}),
        **_named(encoding_view(settings.cache, "latents")),
    }


def text_settings(settings: Settings, models: ModelFiles) -> JsonObject:
    """Everything that changes encoded captions, in the same way.

    Raises:
        UserError: a model file is missing.
    """
    return {
        "format": formats.TEXT,
        "models.text_encoder": models.identity("text_encoder"),
        "models.tokenizer": models.identity("tokenizer"),
        "models.glyph_encoder": models.identity("glyph_encoder"),
        **_named(encoding_view(settings.cache, "text")),
    }


def encode_clips(
    settings: Settings, models: ModelFiles, dataset: ProjectDataset, store: Path, paths: ProjectPaths
) -> Encoding[NeededClips]:
    """The clips of all datasets.

    Raises:
        UserError: a model file is missing, or a dataset cannot be used.
    """
    needed = {
        f"{each.media}-{dataset.rules[each.dataset]}": NeededClips(
            each.source, each.media, dataset.datasets[each.dataset]
        )
        for each in dataset.sources
    }
    return _encoding("latents", store, paths, latents_settings(settings, models), needed, settings)


def encode_masks(settings: Settings, dataset: ProjectDataset, store: Path, paths: ProjectPaths) -> Encoding[NeededMask]:
    """The masks of all datasets; nothing is needed if no clip has one.

    Raises:
        UserError: a dataset cannot be used.
    """
    needed = {
        masked_source_key(each.mask, f"{each.media}-{dataset.rules[each.dataset]}"): NeededMask(
            each.source.mask, each.mask, each.source, each.media, dataset.datasets[each.dataset]
        )
        for each in dataset.sources
        if each.source.mask is not None
    }
    return _encoding("masks", store, paths, {"format": formats.MASKS}, needed, settings)


def encode_texts(
    settings: Settings,
    models: ModelFiles,
    captions: Mapping[str, str],
    prompts: Iterable[str],
    store: Path,
    paths: ProjectPaths,
) -> Encoding[str]:
    """Each distinct caption and prompt once; the empty text serves caption dropout and the unguided branch.

    Args:
        captions: by their keys.

    Raises:
        UserError: a model file is missing.
    """
    needed = {**captions, **{caption_key(text): text for text in ("", *prompts)}}
    return _encoding("text", store, paths, text_settings(settings, models), needed, settings)


def _encoding(
    kind: EncodedKind,
    store: Path,
    paths: ProjectPaths,
    encoded_by: JsonObject,
    needed: Mapping[str, Needed],
    settings: Settings,
) -> Encoding[Needed]:
    others = tuple(paths.manifests_of_others(kind))
    return Encoding(kind, store, paths.manifests(kind), encoded_by, needed, settings.cache.shards, others)


def _named(cache: JsonObject) -> JsonObject:
    """Settings as a user writes them: cache.vae_sample_size."""
    return {f"cache.{name}": value for name, value in cache.items()}
