"""The LoRA after a step of a training: from what it is made, and where the training has kept a copy of it.

It depends on the past of a training (`hv15.train.past`) and on the step. So it stays what it is when the training goes
on. A copy that a training keeps tells in its metadata of which training and after which step it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from hv15.config import TrainSettings
from hv15.digest import digest
from hv15.errors import UserError
from hv15.models.weights.header import read_header
from hv15.project.products import lora_files
from hv15.records.json_values import Json, JsonObject, RecordError, as_object, parse_object
from hv15.records.metadata import CONFIG, EMA_DECAY, MADE_FROM, STEPS, VALIDATION_LOSS
from hv15.records.paths import ProjectPaths
from hv15.records.training import set_aside
from hv15.train.folder import choose
from hv15.train.past import past_of

STEP = "step"
"""The entry of a spec that only the LoRA after a step has."""


def checkpoint_spec(train: TrainSettings, spec: Mapping[str, Json], step: int) -> JsonObject:
    """Return everything on which the file of the LoRA after a step depends.

    Args:
        spec: of the whole training.
    """
    return {**past_of(train, spec), STEP: step, "save_precision": train.save_precision}


def earlier_step(train: TrainSettings, step: int | None) -> int | None:
    """Return a step, but None for the one after which the settings say that the training ends."""
    is_last = step == train.max_train_steps and train.validation.patience is None
    return None if is_last else step


def lora_after(train: TrainSettings, step: int | None, paths: ProjectPaths) -> Path:
    """Return the file of the LoRA after a step; None: after the last one."""
    before_the_end = earlier_step(train, step)
    return paths.trained if before_the_end is None else paths.checkpoint_lora(before_the_end)


def will_be_kept(train: TrainSettings, spec: JsonObject, paths: ProjectPaths, step: int) -> bool:
    """Whether the training, where it goes on now, is going to pass a step, of which it then keeps the LoRA.

    Args:
        spec: of the whole training.
    """
    last = train.max_train_steps
    if _made_from(paths.trained) == spec or (last is not None and step > last):
        return False
    return choose(paths.training, digest(past_of(train, spec)), last).step < step


def is_gone(train: TrainSettings, spec: JsonObject, paths: ProjectPaths, kept: Iterable[int], step: int) -> bool:
    """Whether the training has passed a step of which nothing is kept, not even as the published LoRA.

    Args:
        spec: of the whole training.
        kept: the steps of `kept_checkpoints`.
    """
    if step in kept or _made_from(paths.lora) == checkpoint_spec(train, spec, step):
        return False
    return not will_be_kept(train, spec, paths, step)


def kept_checkpoints(train: TrainSettings, spec: JsonObject, paths: ProjectPaths) -> dict[int, Path]:
    """Return the LoRA files that a project has of its training, by step, in order; the last may be the trained one.

    Those of a training that was moved aside count as well if the settings are those of that one again, and those that
    were published or sampled before.

    Args:
        spec: of the whole training.
    """
    folders = [folder / paths.checkpoints.name for folder in (paths.training, *set_aside(paths.training))]
    # Of two files of a step, the first counts: lora-step..., lora-epoch..., best.
    copies = [path for folder in folders for path in sorted(folder.glob("*.safetensors"), reverse=True)]
    past, found = past_of(train, spec), dict[int, Path]()
    if _made_from(paths.trained) == spec:  # else the training replaces it
        copies.insert(0, paths.trained)
    for path in copies:
        step = step_of(path, train, past)
        if step:  # what the lowest loss may be of, before the first step, is no step of the training
            found.setdefault(step, path)
    for step in paths.sampled_checkpoints():
        path = paths.checkpoint_lora(step)
        if all(_made_from(file) == checkpoint_spec(train, spec, step) for file in lora_files(train, path)):
            found.setdefault(step, path)
    return dict(sorted(found.items()))


def promised_steps(train: TrainSettings) -> list[int]:
    """Return the steps of which a training that begins now keeps the LoRA, as far as the settings alone say it."""
    last = train.max_train_steps
    if last is None or train.validation.patience is not None:
        return []
    every, kept = train.save_every_n_steps, list[int]()
    if every is not None:
        kept = list(range(every, last + 1, every))[-(train.save_last_n_steps or last) :]
    return sorted({*kept, last, *([train.publish_step] if train.publish_step else [])})


def _made_from(path: Path) -> JsonObject | None:
    """Return what a LoRA file was made from; None if it is not there, or does not tell."""
    try:
        return parse_object(read_header(path).metadata[MADE_FROM])
    except (KeyError, OSError, RecordError, UserError):
        return None


def published_step(lora: Path) -> int | None:
    """Return after which step a published LoRA was kept; None if it is that after the last one, or is not there."""
    step = (_made_from(lora) or {}).get(STEP)
    return step if isinstance(step, int) else None


def step_of(path: Path, train: TrainSettings, past: JsonObject) -> int | None:
    """Return after which step of the training with this past a file was saved; None if it is of another, or unusable.

    Of a training with an average, both files must be there.
    """
    if not all(file.is_file() for file in lora_files(train, path)):
        return None
    try:
        metadata = read_header(path).metadata
        made_from = parse_object(metadata[MADE_FROM])
        precision = as_object(made_from.get("train")).get("save_precision")
        is_ours = past_of(train, made_from) == past
    except (KeyError, OSError, RecordError, UserError):
        return None
    steps = metadata.get(STEPS, "")
    is_precise = precision != "bfloat16" or train.save_precision == "bfloat16"
    is_lora = is_ours and is_precise and EMA_DECAY not in metadata
    return int(steps) if is_lora and steps.isdecimal() else None


def not_kept(step: int, kept: Iterable[int], setting: str = "") -> UserError:
    """Return the error for a step of which nothing is kept; it lists those that are."""
    listed = ", ".join(f"{each:,}" for each in kept)
    where = f"{setting}: " if setting else ""
    hint = "`hv15 pick STEP` publishes one of these, `hv15 pick final` the last; train.save_every_n_steps keeps more"
    if not listed:
        hint = "set train.save_every_n_steps before a training; `hv15 pick final` publishes its last step"
    return UserError(f"{where}the LoRA after step {step:,} is not kept; there are {listed or 'none'}", hint=hint)


def keep_checkpoint(source: Path, out: Path, wanted: JsonObject, train: TrainSettings) -> None:
    """Write a kept LoRA as it is published, and beside it its average if it has one.

    Its metadata tells the step, and the config that publishes it. It does not depend on which copy of the step it is.

    Args:
        wanted: its spec.

    Raises:
        UserError: a file is damaged, or the disk is full.
    """
    from hv15.lora import save_lora
    from hv15.lora.files import read_lora
    from hv15.precision import named_dtype

    for kept, file in zip(lora_files(train, source), lora_files(train, out), strict=True):
        tensors, metadata = read_lora(kept)
        save_lora(file, tensors, told_of_step(metadata, wanted), dtype=named_dtype(train.save_precision))


def told_of_step(metadata: Mapping[str, str], wanted: JsonObject) -> dict[str, str]:
    """Return the metadata of a published step from that of its copy."""
    config = parse_object(metadata[CONFIG])
    config["train"] = as_object(config.get("train", {})) | {"publish_step": wanted[STEP]}
    told = {name: text for name, text in metadata.items() if name != VALIDATION_LOSS}
    made_from = json.dumps(wanted, sort_keys=True, ensure_ascii=False)
    return told | {CONFIG: json.dumps(config, ensure_ascii=False), MADE_FROM: made_from}
