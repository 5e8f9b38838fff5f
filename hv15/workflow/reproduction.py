"""What differs between a LoRA and the one that was made again from what it tells: causes first, then effects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from hv15.digest import digest, file_sha256
from hv15.errors import UserError
from hv15.models.weights.header import Header, TensorEntry, read_header
from hv15.project import Project
from hv15.project.checkpoints import STEP
from hv15.records.found_runs import reproductions, trained_experiments
from hv15.records.json_values import JsonObject, RecordError, as_object
from hv15.records.metadata import COMMIT, DEVICE, VERSIONS
from hv15.records.metrics import read_steps
from hv15.records.paths import ProjectPaths
from hv15.records.project_lock import ProjectLock
from hv15.records.trained_dataset import TrainedDataset
from hv15.records.training import known_record, set_aside
from hv15.terminal_text import one_line
from hv15.train.origin import ENTRY, Origin, find_origin
from hv15.train.past import past_of
from hv15.workflow.dataset_changes import dataset_changes
from hv15.workflow.differences import change_of_settings, differences
from hv15.workflow.encoding_reasons import settings_of
from hv15.workflow.locking import program_changes, programs, version_changes
from hv15.workflow.setting_names import TRAINING_NAMES
from hv15.workflow.told_trainings import ToldLoRA, ToldTraining

_OF_A_COPY = (STEP, "save_precision")
_KINDS = {"latents": "clips", "text": "captions"}
_MOST_NAMED = 5


# -- inputs ---------------------------------------------------------------------------------------------------------


def recorded_dataset(training: ToldTraining, lora: Path, root: Path) -> TrainedDataset | None:
    """Return what a training was trained on, by name; None if neither its folder nor hv15.lock is there to tell it."""
    paths = ProjectPaths(root)
    folders = [each.training for each in (paths, *trained_experiments(root), *reproductions(root))]
    folders += [lora.absolute().parent / paths.training.name]
    for folder in folders:
        for each in (folder, *set_aside(folder)):
            try:
                found = TrainedDataset.load(each / paths.trained_dataset.name)
            except RecordError:
                continue
            if found.digest == training.dataset:
                return found
    lock = _lock(root)
    return lock.dataset if lock is not None and lock.dataset and lock.dataset.digest == training.dataset else None


def refuse_missing_clips(recorded: TrainedDataset, present: Project, lora: Path) -> None:
    """Check that every clip of a training is still in the datasets that its config names, whatever it is called.

    Args:
        present: with the training's config, and all that its datasets hold now.

    Raises:
        UserError: clips are missing; the first are named.
    """
    there = {each.media for each in present.dataset.sources}
    gone = [pair.name for pair in recorded.pairs if pair.media not in there]
    if not gone:
        return
    more = f" and {len(gone) - _MOST_NAMED} more" if len(gone) > _MOST_NAMED else ""
    raise UserError.at(
        lora,
        f"{len(gone)} of the {len(recorded.pairs)} clips that it was trained on are not there any more, or are other "
        f"files now: {', '.join(gone[:_MOST_NAMED])}{more}",
        hint="put them back: names do not matter, but every byte does",
    )


def refuse_missing_start(origin: Origin, project: Project, lora: Path) -> None:
    """Check that what the first training started from, which none of the LoRA's own trainings made, is there.

    Args:
        project: with the training's config.

    Raises:
        UserError: it is not.
    """
    setting = project.settings.train.continue_from
    named = project.settings.resolve(setting) if setting else None
    if find_origin(origin, project.paths.training, named) is None:
        raise UserError.at(
            lora,
            f"its first training started from {origin}, and {setting} is not that, or not there any more",
            hint="put the file back: every byte matters",
        )


def input_changes(
    training: ToldTraining, project: Project, recorded: TrainedDataset | None, present: Project
) -> list[str]:
    """Return what differs in what a training would be made from now: models, encodings, clips, captions, files.

    Args:
        project: with the training's config, and of its datasets only the clips that it was trained on.
        recorded: these clips, if they are known by name.
        present: with all that its datasets hold now.

    Raises:
        UserError: a model or a file is missing, or a dataset cannot be used.
    """
    old, new = (_comparable(project, spec) for spec in (training.made_from, project.spec_without_start))
    changes = list(differences(old, new, {**TRAINING_NAMES, "dit": "another transformer (models.dit)."}))
    changes.sort(key=lambda words: not words.startswith("another transformer"))
    for encoding in project.encodings:
        before, now = old.get(encoding.kind), new.get(encoding.kind)
        if before != now and encoding.kind in _KINDS:
            kind = _KINDS[encoding.kind]
            former = settings_of(encoding, str(before), ProjectPaths(project.root).manifests(encoding.kind))
            words = change_of_settings(former, encoding.settings, kind) if former else []
            changes += words or [f"{kind} are encoded with another model or in another way"]
    if old.get("dataset") != new.get("dataset"):
        named = [] if recorded is None else list(dataset_changes(recorded, those_of(recorded, present)))
        before = as_object(old.get("dataset", {})).get("size")
        there = f"{len(project.dataset.trained_sources)} captioned files"
        changes += named or [f"the dataset: it was trained on {before}, now there are {there}, not the same"]
    return changes


def those_of(recorded: TrainedDataset, present: Project) -> TrainedDataset:
    """Return what is there now of the clips of a training; what was added later is left out.

    A clip that does not have its name any more is found by its content, of several copies first with its own caption.
    """
    now = present.dataset.record()
    there = {(each.name, each.media) for each in now.pairs}
    names = {(pair.name, pair.media) for pair in recorded.pairs}
    renamed = Counter(pair.media for pair in recorded.pairs if (pair.name, pair.media) not in there)
    texts = {(pair.media, pair.caption) for pair in recorded.pairs}
    found = {each for each in now.pairs if (each.name, each.media) in names}
    for each in sorted(now.pairs, key=lambda each: (each.media, each.caption) not in texts):
        if each not in found and renamed[each.media]:
            renamed[each.media] -= 1
            found.add(each)
    return TrainedDataset(now.digest, [each for each in now.pairs if each in found])


def _comparable(project: Project, spec: JsonObject) -> JsonObject:
    """Return the part of a spec that two trainings with equal first steps have in common, without their start."""
    whole = {name: value for name, value in spec.items() if name not in _OF_A_COPY}
    past = past_of(project.settings.train, whole)
    train = {name: value for name, value in as_object(past.get("train", {})).items() if name != ENTRY}
    return {**past, "train": train}


# -- programs -------------------------------------------------------------------------------------------------------


def told_changes(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    """Yield what differs in what two files tell: versions, commit and device first."""
    first = (VERSIONS, COMMIT, DEVICE)
    if old.get(VERSIONS) != new.get(VERSIONS):
        yield from version_changes(_versions(old), _versions(new))
    if old.get(COMMIT) != new.get(COMMIT):
        yield f"hv15's commit {_brief(old.get(COMMIT))} -> {_brief(new.get(COMMIT))}"
    if old.get(DEVICE) != new.get(DEVICE):
        yield f"device: {old.get(DEVICE, 'unknown')} -> {new.get(DEVICE, 'unknown')}"
    for name in sorted({*old, *new}.difference(first)):
        if old.get(name) != new.get(name):
            yield f"what it tells as {name}"


def lock_changes_of(told: ToldLoRA, root: Path) -> list[str]:
    """Return which versions differ from those in hv15.lock, if that was written for the same clips and models."""
    lock, spec = _lock(root), told.trainings[-1].made_from
    if lock is None or any(lock.training.get(name) != spec.get(name) for name in ("dataset", "dit")):
        return []
    return [f"{words} (as hv15.lock has it)" for words in program_changes(lock.programs, programs())]


def _lock(root: Path) -> ProjectLock | None:
    try:
        return ProjectLock.load(ProjectPaths(root).project_lock)
    except RecordError:
        return None


def _versions(metadata: Mapping[str, str]) -> dict[str, str]:
    return ToldLoRA(Path(), "", dict(metadata), ()).versions


def _brief(commit: str | None) -> str:
    return "unknown" if commit is None else commit[:12]


# -- steps ----------------------------------------------------------------------------------------------------------


def metrics_of(training: ToldTraining, project: Project, lora: Path) -> Path | None:
    """Return the metrics of a training that the project or the LoRA's folder still has, but not of a reproduction."""
    paths, past = ProjectPaths(project.root), digest(past_of(project.settings.train, _whole(training)))
    folders = [each.training for each in (paths, *trained_experiments(project.root))]
    folders.append(lora.absolute().parent / paths.training.name)
    for folder in folders:
        for each in (folder, *set_aside(folder)):
            record = known_record(each)
            if record is not None and record.digest == past and (each / paths.metrics.name).is_file():
                return each / paths.metrics.name
    return None


def _whole(training: ToldTraining) -> JsonObject:
    return {name: value for name, value in training.made_from.items() if name not in _OF_A_COPY}


def first_other_step(former: Path, now: Path) -> str:
    """Return the first step whose loss or gradient differs between two metrics files, in words; "" if none does."""
    for old, new in zip_longest(read_steps(former), read_steps(now)):
        if old is None or new is None:
            return ""  # one of them goes on
        if old.step != new.step:
            return f"step {min(old.step, new.step)}: only one of the two trainings has recorded it"
        for name in ("loss", "prior_loss", "grad_norm"):
            before, after = getattr(old, name), getattr(new, name)
            if before != after:
                return f"step {old.step}: {name} {before} -> {after}"
    return ""


# -- files ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FileDifference:
    """How two LoRA files differ."""

    is_identical: bool
    weights: tuple[str, ...] = ()
    """Differences of the tensors, in words; none if all of their bytes are the same."""
    told: tuple[str, ...] = ()
    """Differences of what they tell."""


def file_difference(former: Path, now: Path) -> FileDifference:
    """Compare two LoRA files, tensor by tensor in the order of the first one.

    Raises:
        UserError: one of them cannot be read.
        OSError: likewise.
    """
    if file_sha256(former) == file_sha256(now):
        return FileDifference(is_identical=True)
    old, new = read_header(former), read_header(now)
    weights = list(_tensor_differences(old, new))
    told = tuple(told_changes(old.metadata, new.metadata))
    if not weights and not told:
        told = ("the order of what the files hold",)
    return FileDifference(is_identical=False, weights=tuple(weights), told=told)


def _tensor_differences(old: Header, new: Header) -> Iterator[str]:
    for name in sorted(old.entries.keys() ^ new.entries.keys())[:1]:
        yield one_line(f"tensor {name}: only in the {'former' if name in old.entries else 'new'} file")
    others = list[str]()
    ordered = sorted(old.entries.items(), key=lambda item: item[1].start)
    with old.path.open("rb") as former, new.path.open("rb") as now:
        for name, entry in ordered:
            twin = new.entries.get(name)
            if twin is None:
                continue
            if (entry.dtype, entry.shape) != (twin.dtype, twin.shape):
                sizes = f"{entry.dtype} {list(entry.shape)} -> {twin.dtype} {list(twin.shape)}"
                yield one_line(f"tensor {name}: {sizes}")
                return
            former.seek(_place(old, entry))
            now.seek(_place(new, twin))
            if former.read(entry.end - entry.start) != now.read(twin.end - twin.start):
                others.append(name)
    if others:
        yield one_line(f"tensor {others[0]}: {_distance(old.path, new.path, others[0])}")
        if len(others) > 1:
            yield f"{len(others)} of {len(old.entries)} tensors differ"


def _place(header: Header, entry: TensorEntry) -> int:
    """Return where a tensor begins in its file."""
    return 8 + len(header.raw) + entry.start


def _distance(former: Path, now: Path, name: str) -> str:
    from safetensors import safe_open

    tensors = []
    for path in (former, now):
        with safe_open(path, framework="pt") as file:
            tensors.append(file.get_tensor(name).double())
    old, new = tensors
    return f"values differ by up to {float((old - new).abs().max()):.2e}, the largest is {float(old.abs().max()):.2e}"
