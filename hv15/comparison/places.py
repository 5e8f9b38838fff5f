"""Which trainings a person names: a project with its experiments, or the results of a single one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from hv15.errors import UserError
from hv15.records.paths import RESULTS, ProjectPaths


def named_trainings(folders: Iterable[Path]) -> dict[str, ProjectPaths]:
    """Return the trainings in project folders and in folders such as `results/NAME`, by name, in their order.

    A project's own training has the name of its folder. Where two names are equal, the project's stands before each.

    Raises:
        UserError: in one of the folders nothing was trained.
    """
    places = [each for folder in folders for each in _trainings(folder)]
    places = [*dict.fromkeys(places)]
    counts = Counter(map(_name, places))
    names = [_name(each) if counts[_name(each)] == 1 else f"{each.root.name}/{_name(each)}" for each in places]
    seen = Counter[str]()
    found: dict[str, ProjectPaths] = {}
    for name, each in zip(names, places, strict=True):
        seen[name] += 1
        found[name if seen[name] == 1 else f"{name} ({seen[name]})"] = each
    return found


def _is_there(paths: ProjectPaths) -> bool:
    """Whether a training has measured something, or its LoRA is there: perhaps a copy of an equal one."""
    return any(file.is_file() for file in (paths.metrics, paths.trained, paths.lora))


def _name(paths: ProjectPaths) -> str:
    return paths.run or paths.root.name


def _trainings(folder: Path) -> Iterator[ProjectPaths]:
    folder = folder.absolute()
    if folder.parent.name == RESULTS and folder.name != RESULTS:
        single = ProjectPaths(folder.parent.parent, folder.name)
        if _is_there(single):
            yield single
            return
    own = ProjectPaths(folder.parent if folder.name == RESULTS else folder)
    runs = sorted(path.name for path in own.results.glob("*/") if path.name != own.training.name)
    found = [each for each in (own, *(ProjectPaths(own.root, run) for run in runs)) if _is_there(each)]
    if not found:
        raise UserError.at(
            folder,
            "nothing was trained here",
            hint=f"name project folders, or folders of experiments such as {ProjectPaths(run='NAME').results}",
        )
    yield from found
