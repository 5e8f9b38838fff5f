"""The clips that a project's files give, found from the files' headers, without decoding them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from hv15.collection import paused_collection
from hv15.data.clips import Clip, missing_lengths, plan_clips
from hv15.data.masks import check_mask
from hv15.data.media import MediaError
from hv15.project import Project


@dataclass
class DatasetClips:
    """What the files of all datasets give."""

    found: list[tuple[str, Clip]] = field(default_factory=list)
    """(media key, clip), with repetitions."""
    unusable: list[MediaError] = field(default_factory=list)
    """Why, for each file that gives no clip, and what to do."""
    too_short: list[str] = field(default_factory=list)
    """Files that give clips, but not of every length."""
    masks: int = 0
    """Masks that fit their files."""
    notes: dict[str, list[str]] = field(default_factory=dict)
    """Note -> paths of the files that it is about."""


@lru_cache(maxsize=1)
def dataset_clips(project: Project) -> DatasetClips:
    """Look into every file whose content is not known yet; the result is kept for the project.

    Raises:
        UserError: a dataset cannot be used.
    """
    with paused_collection():
        return _dataset_clips(project)


def _dataset_clips(project: Project) -> DatasetClips:
    clips = DatasetClips()
    for each in project.dataset.sources:
        source, dataset = each.source, project.dataset.datasets[each.dataset]
        try:
            info = project.dataset.probed.info(source, each.media)
            found = plan_clips(info, dataset)
            if source.mask is not None:
                check_mask(project.dataset.probed.info(source.mask, each.mask), info)
                clips.masks += 1
            clips.found.extend((each.media, clip) for clip in found)
        except MediaError as error:
            clips.unusable.append(error)
            continue
        for note in info.notes:
            clips.notes.setdefault(note, []).append(source.place)
        if lengths := missing_lengths(info, dataset):
            clips.too_short.append(f"{source.path}: no clip of {', '.join(map(str, lengths))} frames")
    project.dataset.probed.save()
    return clips
