"""The result of searching a dataset: its media, the problems with others, and notes for the user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.data.caption_texts import MOST_VARIANTS, CaptionTexts
from hv15.data.captions import plain
from hv15.data.masks import mask_kind
from hv15.data.media import MaskFile, MediaKind, Source, stamp
from hv15.data.paths import cure, near
from hv15.records.problems import Place, Problem

if TYPE_CHECKING:
    from hv15.config.datasets import DatasetSettings

MOST_LISTED = 10
"""The most problems of a dataset that are listed; the rest are counted."""

_DEFAULT_HINT = "correct `datasets` in config.yaml, or the files; relative paths start at the project folder"


@dataclass(frozen=True)
class CaptionProblem(Problem):
    """The reason why a medium's caption cannot be used."""

    media: str = ""
    """The path of the medium."""
    caption_file: str = ""
    """The path of its caption."""
    reason: str = ""
    """The problem with that file; "" if it is missing."""


@dataclass
class Survey:
    """One dataset as it is on disk."""

    dataset: DatasetSettings
    sources: list[Source] = field(default_factory=list)
    """The media that can be used, in the order of their names, or of the rows of a JSONL file."""
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Things that the user should know but that are not problems: one sentence each, with the file or folder."""
    empty: list[str] = field(default_factory=list)
    """Paths of the media that have an empty caption."""

    def __post_init__(self) -> None:
        self._default = plain(self.dataset.default_caption or "")
        self._texts = CaptionTexts(self.dataset)

    def add(
        self,
        place: str,
        kind: MediaKind,
        caption: str | None,
        caption_file: str,
        row: int | None = None,
        listed: Sequence[str] | None = None,
        mask: str | None = None,
    ) -> None:
        """Add a medium. Its caption is normalised by `plain`, or None for `default_caption`.

        Args:
            row: the line of a JSONL file, from 0.
            listed: the captions, if they are a list in that file; then `caption` has a line for each.
            mask: the path of its mask.
        """
        try:
            size, mtime_ns, inode = stamp(place, kind)
        except OSError as error:
            self.problems.append(Problem(f"cannot be read: {error.strerror}", place=Place(Path(place))))
            return
        mask_file = None if mask is None else self._mask(place, kind, mask)
        if caption == "":
            self.empty.append(place)
        written = self._default if caption is None else caption
        captions = listed or self._texts.captions(written, in_row=row is not None and caption is not None)
        if len(captions) > MOST_VARIANTS:
            problem = f"{len(captions)} captions for one clip, at most {MOST_VARIANTS} are possible"
            self.problems.append(Problem(problem, place=Place(Path(caption_file), None if row is None else row + 1)))
            return
        texts = self._texts.of(captions)
        known = (place, kind, texts[0], size, mtime_ns, inode, caption_file, row, caption is None, written)
        self.sources.append(Source(*known, listed is not None, texts[1:], mask_file))

    def _mask(self, place: str, kind: MediaKind, mask: str) -> MaskFile | None:
        """Return a medium's mask; None, and a problem, if it cannot be one."""
        of_kind = mask_kind(mask)
        if kind == "image" and of_kind != "image":
            hint = "save it as an image, such as a PNG"
            self.problems.append(Problem(f"a mask of the image {place}, expected an image", hint, Place(Path(mask))))
            return None
        try:
            return MaskFile(mask, of_kind, *stamp(mask, of_kind))
        except OSError as error:
            self.problems.append(Problem(f"cannot be read: {error.strerror}", place=Place(Path(mask))))
            return None

    def listed(self) -> list[Problem]:
        """Return the first problems, and one that counts the rest. At least one of them says what to do."""
        listed, more = self.problems[:MOST_LISTED], len(self.problems) - MOST_LISTED
        if more > 0:
            listed.append(Problem(f"... and {more} more", place=Place(Path(self.dataset.source))))
        if listed and not any(problem.hint for problem in listed):
            listed[0] = replace(listed[0], hint=_DEFAULT_HINT)
        return listed


def unreadable(path: Path, error: OSError, expected: str) -> Problem:
    """Return the problem that a folder or file named in the settings cannot be read."""
    place = Place(path)
    if isinstance(error, FileNotFoundError):
        return Problem(f"does not exist{near(path)}", cure(path.name) or cure(str(path)), place)
    if isinstance(error, NotADirectoryError | IsADirectoryError):
        return Problem(f"expected a {expected}, found a {'folder' if path.is_dir() else 'file'}", place=place)
    return Problem(f"cannot be read: {error.strerror}", place=place)


def counted(number: int, name: str) -> str:
    """Return "1 clip", "2 clips"."""
    return f"{number} {name}{'' if number == 1 else 's'}"
