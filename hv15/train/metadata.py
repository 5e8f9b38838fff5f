"""The metadata of a trained LoRA. It contains no times, so equal runs give equal bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch

import hv15
from hv15.cache.batches import TrainingItem
from hv15.config import Settings, TrainSettings
from hv15.grid import video_size
from hv15.home import git_commit
from hv15.lora import kohya_metadata
from hv15.models import DiTConfig
from hv15.records.json_values import Json, JsonObject, as_object
from hv15.records.metadata import (
    CLIP_SIZES,
    CLIPS,
    COMMIT,
    CONFIG,
    DATASET_SIZE,
    DEVICE,
    EPOCHS,
    MADE_FROM,
    SEGMENTS,
    SHIFT,
    STEPS,
    TASK,
    TRANSFORMER,
    VERSIONS,
)
from hv15.train.told_config import told_config


def lora_metadata(
    settings: Settings,
    spec: JsonObject,
    items: Sequence[TrainingItem],
    *,
    step: int,
    epochs: float,
    base: DiTConfig,
    device: str,
    base_name: str | None = None,
    segments: Sequence[JsonObject] = (),
) -> dict[str, str]:
    """Return all metadata of a LoRA after `step` steps: `ss_*`, `modelspec.*` and `hv15.*`, all as text.

    `hv15.config` is a config that reproduces the file (`hv15.train.told_config`); `hv15.made_from` holds the digests
    of everything that the training depends on: dataset, encoded items, base model. Values that are not numbers or
    strings are JSON.

    Args:
        device: as `device_name` returns it.
        segments: of a LoRA that several trainings made, this one included (`hv15.train.segments`); empty for one.
    """
    train = settings.train
    largest = max((item.shape for item in items), key=lambda shape: (shape[1] * shape[2], shape))
    _, height, width = video_size(*largest)
    known = kohya_metadata(
        base=base,
        base_name=base_name,
        rank=None if train.network_dim_patterns or train.dim_from_weights else train.network_dim,
        alpha=None if train.network_alpha_patterns or train.dim_from_weights else train.network_alpha,
        network_args=_network_args(train),
        steps=step,
        epochs=int(epochs),
        learning_rate=train.learning_rate,
        optimizer=train.optimizer_type,
        seed=train.seed,
        dropout=train.network_dropout,
        resolution=f"{width}x{height}",
        num_train_items=len(items),
    )
    chain = {SEGMENTS: _json([*segments])} if segments else {}
    return {**known, **_own_metadata(settings, spec, items, step, epochs), DEVICE: device, **chain}


def _network_args(train: TrainSettings) -> dict[str, Json]:
    """Return what describes a network other than a plain LoRA, with LyCORIS' names."""
    match train.network_type:
        case "lora":
            return {}
        case "dora":
            return {"algo": "lora", "dora_wd": True}
        case "lokr":
            return {"algo": "lokr", "factor": train.lokr_factor, "full_matrix": train.lokr_full_matrix}
        case kind:
            return {"algo": kind}


def _own_metadata(
    settings: Settings, spec: JsonObject, items: Sequence[TrainingItem], step: int, epochs: float
) -> dict[str, str]:
    train = settings.train
    dataset = as_object(spec.get("dataset", {}))
    return {
        CONFIG: json.dumps(told_config(settings.dump(), spec), ensure_ascii=False),  # in the order of the documentation
        MADE_FROM: _json(spec),
        "hv15.dataset_digest": str(dataset.get("digest", "")),
        DATASET_SIZE: str(dataset.get("size", "")),
        CLIPS: str(len(items)),
        CLIP_SIZES: _json(sorted({item.shape for item in items})),
        TRANSFORMER: str(spec.get("dit", "")),
        TASK: settings.task,
        "hv15.seed": str(train.seed),
        SHIFT: str(train.discrete_flow_shift),
        STEPS: str(step),
        EPOCHS: str(round(epochs, 4)),
        VERSIONS: _json(versions()),
        **({COMMIT: commit} if (commit := git_commit()) else {}),
    }


def device_name(device: torch.device) -> str:
    """Return the name of a GPU, such as "NVIDIA H200"; "cpu" for any processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def versions() -> dict[str, str]:
    """Return the versions of the programs on which the numbers depend."""
    return {"hv15": hv15.__version__, "torch": torch.__version__}


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
