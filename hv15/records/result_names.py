"""The names in the folder of results that no experiment can have."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from hv15.records.paths import REPRODUCED, RESULTS, ProjectPaths

_OWN_NAMES = re.compile(r"train-.*|.*\.(safetensors|json|html|csv|tex|zip|png|mp4|md|txt|lock)")
"""Beside the files and folders of `ProjectPaths`: trainings that were set aside, and files by their endings."""


def is_result_name(name: str) -> bool:
    """Whether something else than an experiment has this name in the folder of results, or may get it."""
    return name.lower() in _names_of_results() or _OWN_NAMES.fullmatch(name.lower()) is not None


@cache
def _names_of_results() -> frozenset[str]:
    paths = ProjectPaths()
    properties = (name for name, each in vars(ProjectPaths).items() if isinstance(each, property))
    found = (path for name in properties if isinstance(path := getattr(paths, name), Path))
    below = (path.relative_to(paths.results).parts for path in found if path.is_relative_to(paths.results))
    others = (RESULTS, REPRODUCED, paths.comparison().charts.name)
    return frozenset(name.lower() for name in (*others, *(parts[0] for parts in below if parts)))
