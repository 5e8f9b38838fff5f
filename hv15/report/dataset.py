"""What a LoRA was trained on, in numbers: files, clips, sizes, lengths of captions."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from hv15.config import DatasetSettings
from hv15.data.survey import counted
from hv15.errors import UserError
from hv15.project import Project
from hv15.project.dataset import FoundSource
from hv15.records.json_values import RecordError
from hv15.records.manifest import EncodedClip, Entry
from hv15.report.private import without_folders
from hv15.units import TIMES

MOST_SIZES = 4
"""Sizes of clips that are named, the most frequent ones."""
EXAMPLES = 6
"""Captions that are shown."""
_KINDS = {"video": "video", "image": "image", "frames": "folder"}
"""Kind of medium -> its word; a folder of images is one clip."""


@dataclass(frozen=True)
class DatasetRow:
    """One dataset, or a part of it."""

    name: str
    use: str
    """What it is for: trained, held out for validation, regularisation."""
    media: str
    """Such as `12 videos`."""
    clips: str
    """Their number; "" if it is not known."""
    frames: str
    sizes: str
    captions: str
    """Their number, and their lengths."""
    repeats: int


@dataclass(frozen=True)
class DatasetSummary:
    """All datasets of a project."""

    rows: tuple[DatasetRow, ...]
    examples: tuple[str, ...]
    """Some of the captions; none unless everything is told."""
    left_out: int
    """Files that could not be used."""


def summarise_dataset(project: Project, *, tells_all: bool) -> DatasetSummary:
    """Return what the datasets of a project hold now.

    Args:
        tells_all: whether captions are shown, and where the files are.

    Raises:
        UserError: a dataset cannot be used.
    """
    dataset, entries = project.dataset, _entries(project)
    rows = []
    for number, settings in enumerate(dataset.datasets):
        ours = [each for each in dataset.sources if each.dataset == number]
        trained = [each for each in ours if dataset.is_trained(each)]
        validated = [each for each in ours if dataset.is_validated(each)]
        use = "regularisation" if settings.is_reg else "trained"
        for sources, what in ((trained, use), (validated, "validation")):
            if sources:
                rule = dataset.rules[number]
                clips = None if entries is None else _clips(sources, rule, entries)
                rows.append(_row(_name(settings, tells_all), what, sources, clips, settings.num_repeats))
    captions = dict.fromkeys(text for each in dataset.sources for text in each.source.texts)
    left_out = sum(bool(entry.skipped) for entry in (entries or {}).values())
    return DatasetSummary(tuple(rows), tuple(_spread(captions)) if tells_all else (), left_out)


def _entries(project: Project) -> dict[str, Entry] | None:
    """What is encoded of the media, by source key; None if that is not known any more."""
    try:
        return project.latents.entries()
    except (UserError, RecordError):
        return None


def _clips(sources: Iterable[FoundSource], rule: str, entries: dict[str, Entry]) -> list[EncodedClip]:
    keys = (f"{each.media}-{rule}" for each in sources)
    return [clip for key in keys if key in entries for clip in entries[key].clips]


def _row(
    name: str, use: str, sources: Sequence[FoundSource], clips: Sequence[EncodedClip] | None, repeats: int
) -> DatasetRow:
    kinds = Counter(_KINDS[each.source.kind] for each in sources)
    texts = {text for each in sources for text in each.source.texts}
    lengths = [len(text) for text in texts]
    words = f"{len(texts)}: {min(lengths)} to {max(lengths)} characters, median {statistics.median(lengths):g}"
    return DatasetRow(
        name=name,
        use=use,
        media=", ".join(counted(count, kind) for kind, count in kinds.items()),
        clips="" if clips is None else str(len(clips)),
        frames="" if clips is None else ", ".join(map(str, sorted({clip.frames for clip in clips}))),
        sizes="" if clips is None else _sizes(clips),
        captions=words,
        repeats=repeats,
    )


def _sizes(clips: Iterable[EncodedClip]) -> str:
    found = Counter((clip.width, clip.height) for clip in clips).most_common()
    words = [f"{width} {TIMES} {height}" for (width, height), _ in found[:MOST_SIZES]]
    return ", ".join(words) + (f" and {len(found) - MOST_SIZES} more" if len(found) > MOST_SIZES else "")


def _name(settings: DatasetSettings, tells_all: bool) -> str:
    return settings.source if tells_all else str(without_folders(PurePosixPath(settings.source).as_posix()))


def _spread(captions: Iterable[str]) -> list[str]:
    """Return some of the captions, evenly spaced."""
    every = list(captions)
    step = max(1, len(every) // EXAMPLES)
    return every[::step][:EXAMPLES]
