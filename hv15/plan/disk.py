"""What a project will still write to each disk, estimated without a model: encoded clips and texts, states, LoRAs, and
tiles of samples, which wait there for each other while they are decoded."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hv15.config.train import TrainSettings
from hv15.demo.layout import BASE
from hv15.errors import UserError
from hv15.file_sizes import bytes_of
from hv15.grid import latent_size
from hv15.models.templates import MAX_TEXT_TOKENS, glyph_text
from hv15.plan.dataset_clips import dataset_clips
from hv15.plan.model_sizes import ModelSizes
from hv15.plan.optimizer_memory import state_bytes
from hv15.plan.workload import TEMPLATE
from hv15.project import Project
from hv15.project.checkpoints import lora_after
from hv15.records.outputs import LATENTS, decoded_outputs
from hv15.records.paths import average_of
from hv15.records.training import STATES_KEPT

FLOAT = 4
"""Bytes of a float32 number."""
ITEM = 300
"""Bytes of an encoded item besides its numbers: names, shapes, what it was made from."""
COUNTED = 200
"""At least this many texts have their tokens counted; the others are assumed to be alike."""
BYTES_PER_TOKEN = 4
"""Assumed for a text where there is no tokenizer."""
LEAST_FREE = 2**30
"""Bytes below which a disk counts as full in any case: samples and logs are not estimated."""


@dataclass
class DiskUse:
    """One disk, and what a project will still write to it. All sizes in bytes."""

    free: int
    folders: list[Path] = field(default_factory=list)
    """The project's folders on it."""
    needs: dict[str, int] = field(default_factory=dict)
    """What will be written -> size."""
    refused: dict[Path, tuple[str, str]] = field(default_factory=dict)
    """What is in the way of writing into a folder on it -> what it is, and what to do."""

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
    """Estimate for each disk that holds the project's cache or results."""
    sizes = ModelSizes(project)
    places = {
        project.cache: _cache_needs(project, sizes),
        project.paths.results: _kept_needs(project, sizes) | _decoding_needs(project, sizes),
    }
    uses: dict[int, DiskUse] = {}
    for folder, needs in places.items():
        there = next(path for path in (folder, *folder.parents) if path.exists())
        use = uses.setdefault(there.stat().st_dev, DiskUse(shutil.disk_usage(there).free))
        use.folders.append(folder)
        use.needs.update(needs)
        if any(needs.values()):
            use.refused.update(_refusal(folder))
    return list(uses.values())


def _refusal(folder: Path) -> dict[Path, tuple[str, str]]:
    """Return what is in the way of writing into a folder, which need not be there yet."""
    there = next(path for path in (folder, *folder.parents) if path.exists() or path.is_symlink())
    if not there.exists():
        return {there: (f"is a link to {there.readlink()}, which is not there", "make that folder, or remove the link")}
    if not there.is_dir():
        return {there: ("is a file, expected a folder", "use another folder")}
    if not os.access(there, os.W_OK | os.X_OK):
        return {there: ("cannot be written to", "change its permissions, or use another folder")}
    return {}


def _cache_needs(project: Project, sizes: ModelSizes) -> dict[str, int]:
    try:
        return {"latents": _latent_bytes(project, sizes), "texts": _text_bytes(project, sizes)}
    except UserError:  # the dataset or the device is wrong, which has its own line
        return {}


def _latent_bytes(project: Project, sizes: ModelSizes) -> int:
    """Bytes of the clips that the store does not hold."""
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
    return numbers * _item_bytes(project, project.settings.cache.latent_dtype) + ITEM * len(cells)


def _text_bytes(project: Project, sizes: ModelSizes) -> int:
    """Bytes of the captions and prompts that the store does not hold."""
    try:
        texts, present = project.texts.needed, set(project.texts.store.all_keys())
    except UserError:  # a model file is missing, which has its own line
        texts, present = project.dataset.texts, set()
    missing = [text for key, text in sorted(texts.items()) if key not in present]
    glyphs = sum(len(quoted.encode()) + 1 for text in missing if (quoted := glyph_text(text)) is not None)
    numbers = _text_tokens(project, missing) * sizes.dit.text_dim + glyphs * sizes.dit.glyph_dim
    item = _item_bytes(project, project.settings.cache.text_dtype)
    return numbers * item + sum(ITEM + len(text.encode()) for text in missing)


def _text_tokens(project: Project, texts: Sequence[str]) -> int:
    """Tokens of all texts and of the template after each; extrapolated from some of the texts if there are many."""
    from hv15.models.tokenizer import PromptTokenizer, load_qwen_tokenizer

    if not texts:
        return 0
    some = texts[:: max(1, len(texts) // COUNTED)]
    tokenizer = project.models.tokenizer
    if project.settings.models.source == "demo":
        tokenizer = BASE / "tokenizer"
    try:
        if isinstance(tokenizer, str):
            raise UserError.at(tokenizer, "on the Hub, and nothing is fetched for an estimate")
        lengths = PromptTokenizer(load_qwen_tokenizer(tokenizer)).lengths(list(some))
    except UserError:
        lengths = [len(text.encode()) // BYTES_PER_TOKEN + TEMPLATE for text in some]
    return sum(min(length, MAX_TEXT_TOKENS) for length in lengths) * len(texts) // len(some)


def _kept_needs(project: Project, sizes: ModelSizes) -> dict[str, int]:
    """The states that a training keeps, one more while the next is written, LoRA files, and large samples' latents."""
    from hv15.lora.publishing import written_numbers
    from hv15.lora.sizes import settings_network

    settings, train = project.settings, project.settings.train
    large = {"enlarged latents": size} if (size := _enlarged_bytes(project, sizes)) else {}
    if not settings.datasets:
        return large
    try:
        network = settings_network(sizes.dit, settings)
        files = 2 if train.ema_decay else 1  # a moving average is as large
        state = files * network.parameters * FLOAT + state_bytes(train, network.matrices)
    except UserError:  # a pattern chooses no layer, or the optimizer refuses its arguments, which has its own line
        return large
    number = FLOAT if train.save_precision == "float32" else FLOAT // 2
    paths, formats, name = project.paths, settings.convert.formats, settings.convert.output_name
    chosen = lora_after(train, train.publish_step, paths)
    products = dict.fromkeys((paths.trained, chosen, paths.lora), network.parameters)
    products |= {paths.converted(layout, name): written_numbers(network, layout) for layout in formats}
    if train.ema_decay:
        products |= {average_of(path): network.parameters for path in (paths.trained, chosen, paths.lora)}
    numbers = sum(size for path, size in products.items() if not path.exists())
    numbers += files * _checkpoints(train) * network.parameters
    return large | {
        "training states": max(0, state * _states(train) - bytes_of(paths.states)),
        "LoRA files": max(0, numbers * number - bytes_of(paths.checkpoints)),
    }


def _enlarged_bytes(project: Project, sizes: ModelSizes) -> int:
    """Bytes of the latents that super resolution will make: at 1904 x 1072 pixels and 121 frames, 32 MB each."""
    try:
        specs = list(project.enlarged.values())
    except UserError:  # a model, an image or a LoRA is missing, which has its own line
        return 0
    due = [spec for spec in specs if not LATENTS.path(project.paths, spec.name).exists()]
    return sum(FLOAT * sizes.dit.latent_channels * math.prod(spec.latent_size) + ITEM for spec in due)


def _states(train: TrainSettings) -> int:
    """The most states that exist at once."""
    saved = STATES_KEPT + 1
    if train.max_train_steps is not None:
        saved = min(saved, math.ceil(train.max_train_steps / train.state_every_n_steps))
    return saved


def _checkpoints(train: TrainSettings) -> int:
    """How many copies of the LoRA the training keeps, as far as that is known without counting clips."""
    kept = 0
    for length, every, last in (
        (train.max_train_steps, train.save_every_n_steps, train.save_last_n_steps),
        (train.max_train_epochs, train.save_every_n_epochs, train.save_last_n_epochs),
    ):
        if length is not None and every is not None:
            kept += min(length // every, length if last is None else last + 1)
    return kept


def _decoding_needs(project: Project, sizes: ModelSizes) -> dict[str, int]:
    """The tiles of the largest sample that is not there yet; they are gone when it is."""
    from hv15.models.vae_decoding import Tiling
    from hv15.plan.decoding import waiting_bytes
    from hv15.plan.encoders import make_vae
    from hv15.precision import pick_device, pick_encoder_dtype

    settings = project.settings
    try:
        dtype = pick_encoder_dtype(settings.sample.dtype_of_vae, pick_device(settings.runtime.device))
        samples = [*project.samples.values(), *project.enlarged.values()]
    except UserError:  # the device is wrong, or a model or a file is missing, which has its own line
        return {}
    due = [
        spec
        for spec in samples
        for output in decoded_outputs(spec.output_type)
        if not output.path(project.paths, spec.name).exists()
    ]
    if not due:
        return {}
    vae = make_vae(sizes.vae, dtype, patch_conv=False)
    tilings = ((spec, Tiling(spec.vae_sample_size, spec.vae_tile_overlap, spec.vae_seamless_tiles)) for spec in due)
    waiting = (waiting_bytes(vae, spec.latent_size, tiling) for spec, tiling in tilings)
    largest = max(waiting, default=0)
    return {"tiles while a sample is decoded": largest} if largest else {}


def _item_bytes(project: Project, stored: str) -> int:
    """Bytes of a stored number: as set, else as the encoders compute."""
    from hv15.precision import pick_device, pick_encoder_dtype, storage_dtype

    dtype = storage_dtype(stored)
    if dtype is None:
        dtype = pick_encoder_dtype(project.settings.cache.dtype, pick_device(project.settings.runtime.device))
    return dtype.itemsize
