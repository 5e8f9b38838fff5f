"""Reading a project's config: YAML plus overrides, checked as a whole, with every problem named at its place."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hv15.config.problems import Location, Problem, explain
from hv15.config.section import expand_variables
from hv15.config.settings import Settings
from hv15.config.yaml_file import YamlFile, read_yaml
from hv15.errors import UserError

log = logging.getLogger(__name__)


def load_config(path: Path, overrides: Mapping[str, Any] | None = None, *, text: str | None = None) -> Settings:
    """Read config.yaml, put `overrides` over it (nested mappings are merged, lists replaced) and check everything.

    With `text`, that is checked as if it were the file's content.

    Raises:
        UserError: with one line for each problem, sorted by place: `config.yaml:24:17 train.learning_rate: ...`, or
            `--config train.learning_rate: ...` for an override.
    """
    path = Path(path)
    source = read_yaml(path, text)
    replaced: set[Location] = set()
    data = _merge(source.data, overrides or {}, (), replaced)
    root = path.absolute().parent
    listed = _datasets_file(data.get("datasets"), root, source, replaced)
    if listed is not None:
        data["datasets"] = _read_datasets(listed, root)
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        lines = sorted(_line(problem, source, replaced, listed) for problem in explain(error, Settings, data))
        raise UserError("\n".join(text for *_, text in lines)) from None
    settings._root = root
    return settings


def _merge(base: Mapping[str, Any], over: Mapping[str, Any], at: Location, replaced: set[Location]) -> dict[str, Any]:
    """Return `base` with the values of `over`, and note in `replaced` where they came in."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and (isinstance(below, Mapping) or (below is None and key in merged)):
            merged[key] = _merge(below or {}, value, (*at, key), replaced)
        else:
            merged[key] = value
            replaced.add((*at, key))
    return merged


def _datasets_file(datasets: Any, root: Path, source: YamlFile, replaced: set[Location]) -> Path | None:
    """Return the dataset file that `datasets` names, or None when it is a list."""
    if not isinstance(datasets, str):
        return None
    try:
        path = root / Path(expand_variables(datasets)).expanduser()
        if path.is_dir():
            raise ValueError(f"{datasets} is a folder; write a list: [{{video_directory: {datasets}}}]")
        if not path.is_file():
            raise ValueError(f"there is no file {path}; expected a dataset file (TOML or JSON) or a list of datasets")
    except ValueError as error:
        *_, text = _line(Problem(("datasets",), str(error)), source, replaced, None)
        raise UserError(text) from None
    return path


def _read_datasets(file: Path, root: Path) -> list[dict[str, Any]]:
    """Read a musubi dataset file as it is: what musubi allows and we do differently is adapted with a warning."""
    from hv15.data.musubi import read_musubi

    found = read_musubi(file, root)
    for note in found.notes:
        log.warning("%s", note)
    return found.datasets


def _line(
    problem: Problem, source: YamlFile, replaced: set[Location], listed: Path | None
) -> tuple[int, int, int, str, str]:
    """Return a sort key and the line to show for a problem."""
    location = problem.location
    if listed is not None and location[:1] == ("datasets",):
        return 1, 0, 0, problem.path, f"{listed} {problem.path}: {problem.message}"
    if any(location[:depth] in replaced for depth in range(1, len(location) + 1)):
        return 2, 0, 0, problem.path, f"--config {problem.path}: {problem.message}"
    line, column = source.position(location, of_key=problem.key_is_wrong)
    where = f"{source.path}:{line}:{column} {problem.path}".rstrip()
    return 0, line, column, problem.path, f"{where}: {problem.message}"
