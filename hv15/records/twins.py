"""The entry of a spec that names the same product of another run, which its job copies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hv15.records.json_values import Json

TWIN = "twin"
"""The entry in a spec's details, and the name of the input."""


def twin_files(details: Mapping[str, Json]) -> list[Path]:
    """Return the files that a spec's details name, relative to the project folder; none if it is to be made."""
    files = details.get(TWIN)
    return [Path(file) for file in files if isinstance(file, str)] if isinstance(files, list) else []
