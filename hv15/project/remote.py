"""Copies of remote files and folders: what a config names, whether it is here, and fetching it (rules/remote.smk)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.atomic import write_json
from hv15.config.section import Section
from hv15.digest import short
from hv15.environment import RUN_VARIABLES, SAFE_PATH
from hv15.errors import UserError, of_the_system
from hv15.home import workflow_folder
from hv15.own_files import lock_own
from hv15.records.cache_paths import CachePaths
from hv15.remote_paths import copy_of, is_remote

if TYPE_CHECKING:
    from hv15.project import Project

VARIABLE = "HV15_REMOTE"
"""The environment variable that tells the workflow what to copy: a JSON object of paths there and places here."""
_PLUGIN = "snakemake_storage_plugin_s3"
_TEXTS = {"prompt", "negative_prompt", "default_caption"}
"""Settings that are no paths, whatever they begin with."""
_POLL_S = 0.5


@dataclass(frozen=True)
class RemoteItem:
    """One file or folder."""

    number: int
    url: str
    place: Path
    """Its copy."""
    note: Path
    """Written when the copy is complete."""

    @property
    def is_here(self) -> bool:
        return self.note.exists() and self.place.exists()


def remote_items(project: Project) -> list[RemoteItem]:
    """Return the remote files and folders that a config and its experiments name, each once.

    Raises:
        ConfigError: the settings of an experiment are wrong.
    """
    changed = (
        name for name, each in project.experiments.items() if any([*_urls_in(change.value)] for change in each.changes)
    )
    runs = [project, *(project.experiment(name) for name in changed)]
    return _items(CachePaths(project.cache), dict.fromkeys(url for run in runs for url in _urls(run.settings)))


def _items(paths: CachePaths, urls: Iterable[str]) -> list[RemoteItem]:
    return [
        RemoteItem(number, url, copy_of(url, paths.remote), paths.fetched(short(url)))
        for number, url in enumerate(urls)
    ]


def _urls(section: Section) -> Iterator[str]:
    """Yield each setting, also in lists and sections, that is a remote path."""
    for name in type(section).model_fields:
        if name not in _TEXTS:
            yield from _urls_in(getattr(section, name))


def _urls_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        if is_remote(value):
            yield value
    elif isinstance(value, Section):
        yield from _urls(value)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _urls_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _urls_in(inner)


def fetch_missing(project: Project) -> list[RemoteItem]:
    """Copy what a config names in remote storage and is not here; return what was copied.

    Raises:
        UserError: as `fetch`.
    """
    missing = [each for each in remote_items(project) if not each.is_here]
    if missing:
        fetch(project, missing)
    return missing


def fetch(project: Project, items: Iterable[RemoteItem]) -> None:
    """Copy remote files and folders, also those that are here if they are newer there.

    Raises:
        UserError: the storage plugin is not installed, or something cannot be read there or written here.
    """
    wanted = {each.url: each for each in items}
    if find_spec(_PLUGIN) is None:
        raise UserError(
            f"{next(iter(wanted))}: reading remote storage needs a plugin of Snakemake that is not installed",
            hint="pip install 'hv15[s3]'",
        )
    for each in wanted.values():
        if not each.place.exists():  # a copy that was removed is made again
            each.note.unlink(missing_ok=True)
    folder = CachePaths(project.cache).remote
    snakefile = workflow_folder() / "rules" / "remote.smk"
    command = [sys.executable, "-P", "-m", "snakemake", "-s", str(snakefile), "-d", str(folder), "--nolock"]
    command += ["--cores", "4", "--rerun-triggers", "mtime", "--ignore-incomplete", "--quiet", "rules"]
    kept = {name: value for name, value in os.environ.items() if name not in RUN_VARIABLES}
    variables = {**kept, SAFE_PATH: "1", VARIABLE: json.dumps([str(folder.parent), *wanted])}
    with _alone(folder):
        done = subprocess.run(command, env=variables, stdin=subprocess.DEVNULL, stdout=2, check=False)
        shutil.rmtree(folder / ".snakemake" / "storage", ignore_errors=True)  # the plugin leaves its copies of folders
    if done.returncode or not all(each.is_here for each in wanted.values()):
        names = ", ".join(each.url for each in wanted.values() if not each.is_here)
        raise UserError(
            f"{names or 'remote storage'}: cannot be copied to {folder}: Snakemake says why above",
            hint="check the name, the network, and the keys: SNAKEMAKE_STORAGE_S3_ENDPOINT_URL, "
            "SNAKEMAKE_STORAGE_S3_ACCESS_KEY and _SECRET_KEY, or ~/.aws/credentials",
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process copies into a folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while (descriptor := lock_own(folder / ".lock")) is None:
            time.sleep(_POLL_S)
    except OSError as error:
        raise of_the_system(error) from error
    try:
        yield
    finally:
        os.close(descriptor)


# -- in the workflow ------------------------------------------------------------------------------------------------


def wanted() -> list[RemoteItem]:
    """Return what this call of the workflow is to copy.

    Raises:
        UserError: `hv15 fetch` did not call it.
    """
    try:
        root, *urls = json.loads(os.environ[VARIABLE])
        return _items(CachePaths(Path(root)), urls)
    except (KeyError, ValueError) as error:
        raise UserError("rules/remote.smk was not called by hv15", hint="use `hv15 fetch`") from error


def take(item: RemoteItem, source: str, note: str) -> None:
    """Put what the storage plugin has retrieved in its place, complete or not at all, and note that.

    A file is linked if the file system can, else copied.
    """
    part = item.place.with_name(f".{item.place.name}.part")
    _remove(part)
    part.parent.mkdir(parents=True, exist_ok=True)
    if Path(source).is_dir():
        shutil.copytree(source, part, copy_function=_link_or_copy)
    else:
        _link_or_copy(source, str(part))
    if item.place.is_dir():
        _remove(item.place)
    part.replace(item.place)
    write_json(Path(note), {"version": 1, "url": item.url})


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
