"""Finds the captioned media of a dataset: names, stamps and captions, no media file is opened.

A scan runs each time that a workflow is planned, so it is quick at 100,000 files; and it reports what is wrong with a
dataset as a whole, not the first mistake only.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hv15.data.folder import scan_folder
from hv15.data.paths import find
from hv15.data.rows import scan_rows
from hv15.data.survey import Survey, counted

if TYPE_CHECKING:
    from hv15.config.datasets import DatasetSettings


def survey(dataset: DatasetSettings, root: Path) -> Survey:
    """Return what can be used of a dataset, what is wrong with the rest of it, and what a person should know."""
    place, tried = find(dataset.source, (root,))
    folder, found = Path(place or tried), Survey(dataset)
    if dataset.video_directory is not None or dataset.image_directory is not None:
        scan_folder(folder, found)
    else:
        scan_rows(folder, root, found)
    if defaults := sum(source.is_default for source in found.sources):
        found.notes.append(f"{folder}: {counted(defaults, 'file')} without a caption: default_caption is used")
    return found
