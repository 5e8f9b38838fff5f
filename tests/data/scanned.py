"""The media of one dataset, as a project takes them."""

from __future__ import annotations

from pathlib import Path

from hv15.config import DatasetSettings
from hv15.data.media import Source
from hv15.data.scan import survey
from hv15.records.problems import ConfigError


def scan(dataset: DatasetSettings, root: Path) -> list[Source]:
    """What can be used of a dataset.

    Raises:
        ConfigError: something is wrong with it.
    """
    found = survey(dataset, root)
    if problems := found.listed():
        raise ConfigError(problems)
    return found.sources
