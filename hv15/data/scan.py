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
from hv15.records.problems import Problem
from hv15.remote_paths import NOT_FETCHED, copy_of, is_remote

if TYPE_CHECKING:
    from hv15.config.datasets import DatasetSettings


def survey(dataset: DatasetSettings, root: Path, copies: Path | None = None) -> Survey:
    """Search a dataset; return the media that can be used, the problems with others, and notes for the user.

    Args:
        root: where relative paths start.
        copies: the folder of copies from remote storage.
    """
    found = Survey(dataset)
    if is_remote(dataset.source) and copies is not None:
        folder = copy_of(dataset.source, copies)
        if not folder.exists():
            found.problems.append(Problem(f"{dataset.source} is not copied to this machine yet", NOT_FETCHED))
            return found
    else:
        place, tried = find(dataset.source, (root,))
        folder = Path(place or tried)
    if dataset.video_directory is not None or dataset.image_directory is not None:
        scan_folder(folder, found)
    else:
        scan_rows(folder, root, found)
    if defaults := sum(source.is_default for source in found.sources):
        found.notes.append(f"{folder}: {counted(defaults, 'file')} without a caption: default_caption is used")
    return found
