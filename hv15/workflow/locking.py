"""What `hv15 lock` records of a project and of this machine, and how that differs from what it recorded before."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping

import hv15
from hv15.choices import Role
from hv15.errors import UserError
from hv15.gpus import gpu_models
from hv15.home import git_commit, uncommitted_changes
from hv15.installed import installed_packages
from hv15.models.weights.fingerprint import FingerprintCache, model_fingerprint
from hv15.operating_system import processor_name
from hv15.project import Project
from hv15.records.cache_paths import CachePaths
from hv15.records.json_values import JsonObject
from hv15.records.project_lock import LockedModel, Programs, ProjectLock, with_distinct_names
from hv15.workflow.dataset_changes import dataset_changes
from hv15.workflow.differences import differences
from hv15.workflow.setting_names import TRAINING_NAMES

_NAMES = {**TRAINING_NAMES, "dit": "", "latents": "clips are encoded with other settings or models."}
_NAMES |= {"text": "captions are encoded with other settings or models.", "masks": "masks are encoded otherwise."}


def programs() -> Programs:
    """Return what runs here, and on what."""
    return Programs(
        hv15=hv15.__version__,
        commit=git_commit() or "",
        uncommitted=uncommitted_changes(),
        python=platform.python_version(),
        processor=processor_name(),
        gpus=tuple(gpu_models()),
        packages=dict(installed_packages()),
    )


def lock_of(project: Project) -> ProjectLock:
    """Return a project's lock as it would be written now.

    Raises:
        UserError: a model or a file that the config names is missing, or a dataset cannot be used.
    """
    trains = bool(project.settings.datasets)
    return ProjectLock(
        programs(),
        {role: _model(project, role) for role in project.settings.roles},
        project.training_spec if trains else {},
        with_distinct_names(project.dataset.record()) if trains else None,
    )


def _model(project: Project, role: Role) -> LockedModel:
    path, identity = project.models.path(role), project.models.identity(role)
    if not path.exists():  # a file that the workflow will make or download, or the name of a tokenizer
        return LockedModel(identity)
    cache = FingerprintCache(CachePaths(project.cache).model_fingerprints)
    fingerprint = model_fingerprint(path, cache=cache)
    cache.save()
    return LockedModel(identity, fingerprint)


def lock_changes(old: ProjectLock, new: ProjectLock) -> Iterator[str]:
    """Yield a line for each difference between two locks: programs, the machine, models, settings, clips, captions."""
    yield from program_changes(old.programs, new.programs)
    for role in dict.fromkeys((*old.models, *new.models)):
        before, now = old.models.get(role), new.models.get(role)
        if before is None or now is None:
            yield f"models.{role} is {'needed' if before is None else 'not needed any more'}"
        elif before.identity != now.identity:
            yield f"another file for models.{role}" if before.fingerprint else f"models.{role} comes from elsewhere"
        elif before.fingerprint and now.fingerprint and before.fingerprint != now.fingerprint:
            yield f"another file for models.{role}"
    yield from differences(_without_dataset(old.training), _without_dataset(new.training), _NAMES)
    if old.dataset is not None and new.dataset is not None and old.dataset.digest != new.dataset.digest:
        yield from list(dataset_changes(old.dataset, new.dataset)) or ["the dataset changed"]


def _without_dataset(spec: JsonObject) -> JsonObject:
    return {name: value for name, value in spec.items() if name != "dataset"}


def program_changes(old: Programs, new: Programs) -> Iterator[str]:
    """Yield a line for each difference between the programs and machines of two locks."""
    yield from _change("hv15", old.hv15, new.hv15)
    yield from _change("hv15's commit", old.commit[:12], new.commit[:12])
    if old.uncommitted != new.uncommitted:
        yield f"hv15's own files {'are' if new.uncommitted else 'were'} edited since that commit"
    yield from _change("Python", old.python, new.python)
    yield from version_changes(old.packages, new.packages)
    yield from _change("processor:", old.processor, new.processor)
    yield from _change("GPUs:", ", ".join(old.gpus) or "none", ", ".join(new.gpus) or "none")


def version_changes(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each package of another version."""
    for name in sorted({*old, *new}):
        yield from _change(name, old.get(name, "not installed"), new.get(name, "not installed"))


def _change(name: str, before: str, now: str) -> Iterator[str]:
    if before != now:
        yield f"{name} {before or 'unknown'} -> {now or 'unknown'}"


def written_lock(project: Project) -> ProjectLock:
    """Return the lock that a project has.

    Raises:
        UserError: it has none, or one that cannot be read.
    """
    path = project.paths.project_lock
    if not path.exists():
        raise UserError.at(path, "does not exist", hint="`hv15 lock` writes it")
    try:
        return ProjectLock.load(path)
    except ValueError as error:
        hint = "restore it, or write it anew with `hv15 lock`"
        raise UserError.at(path, f"cannot be used: {error}", hint=hint) from None
