"""What a project will still write, estimated without a model: encoded clips, texts and training states."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.data.clips import Clip, missing_lengths, plan_clips
from hv15.data.media import MediaError
from hv15.data.probe import probe
from hv15.errors import UserError
from hv15.models.grid import latent_size
from hv15.project import Project
from hv15.records.checks import Check, CheckState
from hv15.units import size

if TYPE_CHECKING:
    from hv15.models import DiTConfig

VISION_NUMBERS = 729 * 1152
"""Numbers of the SigLIP states of one first frame (i2v)."""
TEXT_TOKENS = 300
"""Tokens of a usual caption: most have 50 to 500."""
MOMENTS = 2
"""What AdamW keeps for each weight of the LoRA, in float32; 8-bit ones and Muon keep less."""
FLOAT = 4
"""Bytes of a float32 number."""
MARGIN = 2**30
"""Bytes below which a disk counts as full in any case: samples, checkpoints and logs are not estimated."""


@dataclass(frozen=True)
class Clips:
    """What the datasets' files give."""

    found: list[tuple[str, Clip]]
    """(media key, clip), with repetitions."""
    unusable: list[str]
    """Why, for each file that gives no clip."""
    too_short: list[str]
    """Files that give clips, but not of every length."""


@lru_cache(maxsize=1)
def planned_clips(project: Project) -> Clips:
    """Look into every file of the datasets, once."""
    clips = Clips([], [], [])
    for each in project.dataset.sources:
        source, media = each.source, each.media
        dataset = project.settings.datasets[each.dataset]
        try:
            info = probe(source.path, source.kind)
            clips.found.extend((media, clip) for clip in plan_clips(info, dataset))
        except MediaError as error:
            clips.unusable.append(error.message)
            continue
        if lengths := missing_lengths(info, dataset):
            clips.too_short.append(f"{source.path}: no clip of {', '.join(map(str, lengths))} frames")
    return clips


def disk_checks(project: Project) -> Iterator[Check]:
    """Free space where the cache and the results are, and whether what is missing fits into it."""
    places = {
        project.cache: _cache_needs(project),
        project.root / "results": {"training states": _state_bytes(project)},
    }
    wanted: dict[int, dict[str, int]] = {}
    folders: dict[int, list[Path]] = {}
    for folder, needs in places.items():
        device = _existing(folder).stat().st_dev
        wanted.setdefault(device, {}).update(needs)
        folders.setdefault(device, []).append(folder)
    for device, needs in wanted.items():
        free, total = shutil.disk_usage(_existing(folders[device][0])).free, sum(needs.values())
        listed = ", ".join(f"{size(needed)} {name}" for name, needed in needs.items() if needed)
        estimate = f"; still to be written: about {listed}" if listed else ""
        names = " and ".join(map(str, folders[device]))
        lack = f"; {size(total - free)} too little" if total > free else ""
        state: CheckState = "problem" if free < max(total, MARGIN) else "ok"
        yield Check(state, "disk", f"{size(free)} free for {names}{estimate}{lack}")


def _cache_needs(project: Project) -> dict[str, int]:
    try:
        return {"latents": _latent_bytes(project), "texts": _text_bytes(project)}
    except UserError:  # the dataset or the device is wrong, which has its own line
        return {}


def _latent_bytes(project: Project) -> int:
    """Of the clips that the store does not hold."""
    from hv15.cache.latents import clip_key

    clips = {clip_key(media, clip): clip for media, clip in planned_clips(project).found}
    try:
        present = set(project.latents.store.all_keys())
    except UserError:  # a model file is missing, which has its own line
        present = set()
    cells = [latent_size(clip.frames, clip.height, clip.width) for key, clip in clips.items() if key not in present]
    numbers = sum(_model(project).latent_channels * frames * rows * columns for frames, rows, columns in cells)
    if project.settings.task == "i2v":
        numbers += VISION_NUMBERS * len(cells)
    return numbers * _item_bytes(project, project.settings.cache.latent_dtype)


def _text_bytes(project: Project) -> int:
    """Of the captions and prompts that the store does not hold."""
    try:
        keys, present = set(project.texts.needed), set(project.texts.store.all_keys())
    except UserError:
        keys, present = {each.source.caption for each in project.dataset.sources}, set()
    numbers = len(keys - present) * TEXT_TOKENS * _model(project).text_dim
    return numbers * _item_bytes(project, project.settings.cache.text_dtype)


def _state_bytes(project: Project) -> int:
    """Of the states that a training keeps, and of the next one, which is whole before the oldest goes."""
    from hv15.train.state import KEEP

    numbers = _lora_numbers(project)
    states = (project.root / "results" / "train" / "state").rglob("*")
    present = sum(path.stat().st_size for path in states if path.is_file())
    return max(0, numbers * FLOAT * (1 + MOMENTS) * (KEEP + 1) - present)


def _lora_numbers(project: Project) -> int:
    """Weights of the LoRA that the config asks for.

    Raises:
        UserError: a pattern of the config chooses no module.
    """
    import torch

    from hv15.lora.names import select_modules
    from hv15.models import DiT

    train = project.settings.train
    with torch.device("meta"):
        dit = DiT(_model(project))
    linears = {name: module for name, module in dit.named_modules() if isinstance(module, torch.nn.Linear)}
    chosen = select_modules(linears, train.include_patterns, train.exclude_patterns)
    return sum(train.network_dim * sum(linears[name].weight.shape) for name in chosen)


@lru_cache(maxsize=1)
def _model(project: Project) -> DiTConfig:
    """The transformer's sizes; those of the published one while the file is not there or not usable."""
    from hv15.models import DiTConfig
    from hv15.models.dit_sizes import read_config
    from hv15.models.weights.checkpoint import open_checkpoint

    try:
        return read_config(open_checkpoint(project.models.path("dit")))
    except UserError:
        return DiTConfig()


def _item_bytes(project: Project, stored: str) -> int:
    """Bytes of a stored number: as set, else as the encoders compute."""
    from hv15.precision import pick_device, pick_encoder_dtype, storage_dtype

    dtype = storage_dtype(stored)
    if dtype is None:
        dtype = pick_encoder_dtype(project.settings.cache.dtype, pick_device(project.settings.runtime.device))
    return dtype.itemsize


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())
