"""What the training of a project depends on, and what it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from hv15.cache.batches import LossRule, TrainingItem
from hv15.cache.encoding import mask_key
from hv15.config import DatasetSettings, Settings, TrainSettings, digest_view
from hv15.config.training.validation import OF_TRAINING, ValidationSettings
from hv15.errors import UserError
from hv15.grid import latent_size
from hv15.project.dataset import CaptionedMedium, ProjectDataset
from hv15.project.model_files import ModelFiles
from hv15.records import formats
from hv15.records.json_values import JsonObject
from hv15.records.manifest import Entry


def training_spec(
    settings: Settings,
    models: ModelFiles,
    dataset: ProjectDataset,
    *,
    latents: str,
    text: str,
    masks: str,
    file_digest: Callable[[str, str], str],
) -> JsonObject:
    """Everything that changes the trained LoRA, without names and paths.

    Args:
        latents, text, masks: digests of how the clips, captions and masks are encoded.
        file_digest: of (setting, path): the content of a file that a setting names.

    Raises:
        UserError: a file is missing, or a dataset cannot be used.
    """
    return {
        "format": formats.TRAINING,
        "task": settings.task,
        "train": _train_view(settings.train, file_digest) | _validation_view(settings.train.validation, dataset),
        "dit": models.identity("dit"),
        "latents": latents,
        "text": text,
        **({"masks": masks} if any(each.mask for each in dataset.trained_sources) else {}),
        "dataset": {"digest": dataset.digest, "size": len(dataset.trained_sources)},
    }


def _train_view(train: TrainSettings, file_digest: Callable[[str, str], str]) -> JsonObject:
    """The settings of `train:` that change the LoRA, with files by content."""
    view = digest_view(train)
    view["network_weights"] = (
        file_digest("train.network_weights", train.network_weights) if train.network_weights else None
    )
    if train.base_weights:
        view["base_weights"] = [
            {"file": file_digest("train.base_weights", each.path), "multiplier": each.multiplier}
            for each in train.base_weights
        ]
    return view | {"batches_per_step": train.batches_per_step}


def _validation_view(validation: ValidationSettings, dataset: ProjectDataset) -> JsonObject:
    """What changes the LoRA by its validation: which clips are trained on is in the dataset's digest, and when the
    training ends may depend on what is measured."""
    if validation.patience is None:
        return {}
    names = ("patience", "every_n_steps", "every_n_epochs", "at_first", "samples")
    view: JsonObject = {name: getattr(validation, name) for name in names}
    if validation.noise_levels != OF_TRAINING:  # a setting that is younger than some trainings
        view["noise_levels"] = validation.noise_levels
    return {"validation": view | {"clips": dataset.validation_digest}}


def training_items(
    dataset: ProjectDataset, entries: Mapping[str, Entry], masks: Mapping[str, Entry]
) -> list[TrainingItem]:
    """Every clip that is trained on, with its caption.

    Args:
        entries: of the encoded clips, by source key.
        masks: of the encoded masks, by their source key. A clip whose mask cannot be used is left out.

    Raises:
        UserError: no clip is left.
    """
    items = _items(dataset, dataset.pairs, entries, masks)
    if not items:
        raise UserError("no clip is left to train on", hint="`hv15 report` says why each file was left out")
    return items


def validation_items(
    dataset: ProjectDataset, entries: Mapping[str, Entry], masks: Mapping[str, Entry]
) -> list[TrainingItem]:
    """Every clip that is held out for validation, with its caption as it is written.

    Args:
        entries, masks: as for `training_items`.

    Raises:
        UserError: no clip is left.
    """
    items = [replace(item, variants=()) for item in _items(dataset, dataset.validation_pairs, entries, masks)]
    if not items:
        raise UserError(
            "no clip is left to validate on",
            hint="`hv15 report` says why each file was left out; increase train.validation.fraction, or set it to 0",
        )
    return items


def _items(
    dataset: ProjectDataset,
    pairs: Iterable[CaptionedMedium],
    entries: Mapping[str, Entry],
    masks: Mapping[str, Entry],
) -> list[TrainingItem]:
    rules = [_loss_rule(each) for each in dataset.datasets]
    return [
        TrainingItem(
            clip.key,
            pair.texts[0],
            latent_size(clip.frames, clip.height, clip.width),
            dataset=dataset.identities[pair.dataset],
            batch_size=dataset.datasets[pair.dataset].batch_size,
            repeats=dataset.datasets[pair.dataset].num_repeats,
            loss_weight=dataset.datasets[pair.dataset].loss_weight,
            span=dataset.datasets[pair.dataset].span,
            variants=pair.texts if len(pair.texts) > 1 else (),
            name=pair.name,
            mask=mask_key(pair.mask, clip.key) if pair.mask else "",
            loss=rules[pair.dataset],
        )
        for pair in pairs
        if not pair.mask or not masks[pair.mask_source_key].skipped
        for clip in entries[pair.source_key].clips
    ]


def _loss_rule(dataset: DatasetSettings) -> LossRule:
    return LossRule(
        is_reg=dataset.is_reg,
        targets_prior=dataset.targets_prior,
        unmasked_weight=dataset.unmasked_weight,
        unmasked_probability=dataset.unmasked_probability,
        masked_prior_preservation_weight=dataset.masked_prior_preservation_weight,
    )
