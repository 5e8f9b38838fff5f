"""Finds the captioned media of a dataset: names, stamps and captions, without opening media files.

A scan runs each time a workflow is planned, so it must be fast for 100,000 files. It reports all problems of a dataset,
not only the first.
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
    """Search a dataset; return the media that can be used, the problems with others, and notes for the user."""
    place, tried = find(dataset.source, (root,))
    folder, found = Path(place or tried), Survey(dataset)
    if dataset.video_directory is not None or dataset.image_directory is not None:
        scan_folder(folder, found)
    else:
        scan_rows(folder, root, found)
    if defaults := sum(source.is_default for source in found.sources):
        found.notes.append(f"{folder}: {counted(defaults, 'file')} without a caption: default_caption is used")
    return found
