"""What `--config` on Snakemake's command line says: settings of the project, and which LoRA is to be made again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from hv15.config.yaml_file import read_yaml
from hv15.errors import UserError
from hv15.notices.mentioned import SECTION
from hv15.records.json_values import Json

FROM = "from"
"""The entry that names the LoRA that the rule `reproduce` makes again; it is no setting."""


def without_reproduction(config: Mapping[str, Json]) -> tuple[dict[str, Json], str]:
    """Return Snakemake's config without the LoRA that is to be made again, and that LoRA; "" if none is."""
    found = config.get(FROM)
    return {name: value for name, value in config.items() if name != FROM}, found if isinstance(found, str) else ""


def changed_settings(file: Path, config: Mapping[str, Json]) -> dict[str, Json]:
    """The part of Snakemake's merged config that is not in the config file: what came from the command line."""
    read_yaml(file)  # raises if something is wrong with it
    base = yaml.safe_load(file.read_text(encoding="utf-8"))
    return _difference(base if isinstance(base, dict) else {}, config)


def settings_of_notices(files: Sequence[Path], config: Mapping[str, Json]) -> dict[str, Json]:
    """What the command line says of notices, which are sent even if the rest of the config is wrong."""
    if SECTION not in config:
        return {}
    try:
        changed = changed_settings(files[0], config) if files else config
    except UserError:  # which is said when the config is read
        return {}
    return {SECTION: changed[SECTION]} if SECTION in changed else {}


def _difference(base: Mapping[str, Json], merged: Mapping[str, Json]) -> dict[str, Json]:
    result: dict[str, Json] = {}
    for key, value in merged.items():
        below = base.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            if inner := _difference(below, value):
                result[key] = inner
        elif key not in base or below != value:
            result[key] = value
    return result
