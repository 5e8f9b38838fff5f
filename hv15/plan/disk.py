"""What a project will still write to each disk, estimated without a model: encoded clips, texts, training states."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from hv15.errors import UserError
from hv15.grid import latent_size
from hv15.plan.dataset_clips import dataset_clips
from hv15.plan.model_sizes import ModelSizes
from hv15.plan.workload import TEXT_TOKENS
from hv15.project import Project

MOMENTS = 2
"""What AdamW keeps for each weight of the LoRA, in float32; 8-bit ones and Muon keep less."""
FLOAT = 4
"""Bytes of a float32 number."""
LEAST_FREE = 2**30
"""Bytes below which a disk counts as full in any case: samples, checkpoints and logs are not estimated."""


@dataclass
class DiskUse:
    """One disk, and what a project will still write to it. All sizes in bytes."""

    free: int
    folders: list[Path] = field(default_factory=list)
    """The project's folders on it."""
    needs: dict[str, int] = field(default_factory=dict)
    """What will be written -> size."""

    @property
    def needed(self) -> int:
        return sum(self.needs.values())

    @property
    def missing(self) -> int:
        """By how much the disk is too small."""
        return max(0, self.needed - self.free)

    @property
    def is_too_full(self) -> bool:
        return self.free < max(self.needed, LEAST_FREE)


def disk_uses(project: Project) -> list[DiskUse]:
    """Estimate for each disk that holds the project's cache or results.

    Raises:
        UserError: a pattern of the config chooses no module for the LoRA.
    """
    sizes = ModelSizes(project)
    places = {
        project.cache: _cache_needs(project, sizes),
        project.paths.results: {"training states": _state_bytes(project, sizes)},
    }
    uses: dict[int, DiskUse] = {}
    for folder, needs in places.items():
        there = next(path for path in (folder, *folder.parents) if path.exists())
        use = uses.setdefault(there.stat().st_dev, DiskUse(shutil.disk_usage(there).free))
        use.folders.append(folder)
        use.needs.update(needs)
    return list(uses.values())


def _cache_needs(project: Project, sizes: ModelSizes) -> dict[str, int]:
    try:
        return {"latents": _latent_bytes(project, sizes), "texts": _text_bytes(project, sizes)}
    except UserError:  # the dataset or the device is wrong, which has its own line
        return {}


def _latent_bytes(project: Project, sizes: ModelSizes) -> int:
    """Of the clips that the store does not hold."""
    from hv15.cache.latents import clip_key

    clips = {clip_key(media, clip): clip for media, clip in dataset_clips(project).found}
    try:
        present = set(project.latents.store.all_keys())
    except UserError:  # a model file is missing, which has its own line
        present = set()
    cells = [latent_size(clip.frames, clip.height, clip.width) for key, clip in clips.items() if key not in present]
    numbers = sum(sizes.dit.latent_channels * frames * rows * columns for frames, rows, columns in cells)
    if project.settings.task == "i2v":
        numbers += sizes.image_encoder.num_tokens * sizes.dit.vision_dim * len(cells)
    return numbers * _item_bytes(project, project.settings.cache.latent_dtype)


def _text_bytes(project: Project, sizes: ModelSizes) -> int:
    """Of the captions and prompts that the store does not hold."""
    try:
        keys, present = set(project.texts.needed), set(project.texts.store.all_keys())
    except UserError:
        keys, present = {each.source.caption for each in project.dataset.sources}, set()
    numbers = len(keys - present) * TEXT_TOKENS * sizes.dit.text_dim
    return numbers * _item_bytes(project, project.settings.cache.text_dtype)


def _state_bytes(project: Project, sizes: ModelSizes) -> int:
    """Of the states that a training keeps, and of the next one, which is whole before the oldest goes."""
    from hv15.train.state import STATES_KEPT

    numbers = _lora_numbers(project, sizes)
    present = sum(path.stat().st_size for path in project.paths.states.rglob("*") if path.is_file())
    return max(0, numbers * FLOAT * (1 + MOMENTS) * (STATES_KEPT + 1) - present)


def _lora_numbers(project: Project, sizes: ModelSizes) -> int:
    """Weights of the LoRA that the config asks for."""
    import torch

    from hv15.lora.names import select_modules
    from hv15.models import DiT

    train = project.settings.train
    with torch.device("meta"):
        dit = DiT(sizes.dit)
    linears = {name: module for name, module in dit.named_modules() if isinstance(module, torch.nn.Linear)}
    chosen = select_modules(linears, train.include_patterns, train.exclude_patterns)
    return sum(train.network_dim * sum(linears[name].weight.shape) for name in chosen)


def _item_bytes(project: Project, stored: str) -> int:
    """Bytes of a stored number: as set, else as the encoders compute."""
    from hv15.precision import pick_device, pick_encoder_dtype, storage_dtype

    dtype = storage_dtype(stored)
    if dtype is None:
        dtype = pick_encoder_dtype(project.settings.cache.dtype, pick_device(project.settings.runtime.device))
    return dtype.itemsize
