"""Searches a folder for media with their captions in text files beside them."""

# ruff: noqa: PTH116, PTH118
# A Path for each of 100,000 names would take longer than everything else.

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path
from unicodedata import normalize

from hv15.data.captions import read_caption
from hv15.data.masks import FolderMasks
from hv15.data.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, MediaKind, holds_images
from hv15.data.survey import MOST_LISTED, CaptionProblem, Survey, counted, unreadable
from hv15.records.problems import Place, Problem

IGNORED = {
    *("@eadir", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "system volume information", "lost+found"),
    *("__macosx", ".appledouble", ".thumbnails", "thumbs", "thumbnails", ".ipynb_checkpoints"),
}
"""Folders that systems, servers and viewers make, in lower case."""

_SIDECARS = {
    *(".txt", ".caption", ".text", ".md", ".json", ".jsonl", ".yaml", ".yml", ".toml", ".xml", ".csv", ".log", ".ini"),
    *(".srt", ".vtt", ".ass", ".npz", ".npy", ".safetensors", ".pt", ".db", ".zip", ".bak", ".part", ".tmp", ".wav"),
}
"""Suffixes of files that may have a caption of the same name but are not media."""

_RENAME = "rename the captions to the expected names"
_WRITE = (
    "write a text file beside each, or set caption_extension to the ending of your captions, or default_caption to a "
    "text for all without a caption"
)
_MOST_COUNTED = 100_000
"""Most entries of sub-folders that are examined to count what `recursive` would find."""


def scan_folder(folder: Path, found: Survey) -> None:
    """Add the media of a folder to `found`: files, and in a video dataset also sub-folders of images, each one clip.

    With `recursive`, the other sub-folders come after a folder's files, in the order of their names.
    """
    try:
        os.scandir(folder).close()
    except OSError as error:
        found.problems.append(unreadable(folder, error, "folder"))
        return
    walk = _Walk(found)
    waiting = [os.path.join(folder, "")]
    while waiting:
        below = walk.look_into(waiting.pop())
        waiting += [os.path.join(name, "") for name in reversed(below)]
    walk.conclude(folder)


class _Walk:
    """One pass over a folder, and over its sub-folders if the dataset is recursive."""

    def __init__(self, found: Survey) -> None:
        self.found = found
        self.dataset = found.dataset
        self.is_video = self.dataset.kind == "video"
        self.suffixes, self.others = VIDEO_SUFFIXES, IMAGE_SUFFIXES
        if not self.is_video:
            self.suffixes, self.others = self.others, self.suffixes
        self.strays = 0
        self.ignored: dict[str, None] = {}
        self.unread: list[str] = []
        self.deeper = 0
        self._seen: set[tuple[int, int]] = set()

    def look_into(self, base: str) -> list[str]:
        """Add the media of the folder `base` (with a final slash) and return the sub-folders to look into next."""
        try:
            status = os.stat(base)
            with os.scandir(base) as entries:
                listing = {entry.name: entry for entry in entries}
        except OSError as error:
            self.found.problems.append(unreadable(Path(base), error, "folder"))
            return []
        if (status.st_dev, status.st_ino) in self._seen:
            return []  # a link to a parent folder
        self._seen.add((status.st_dev, status.st_ino))
        captions = _Captions(base, listing, self.dataset.caption_extension)
        masks = FolderMasks(listing)
        kind: MediaKind = "video" if self.is_video else "image"
        others: list[tuple[str, os.DirEntry[str]]] = []
        suffixes, ending = self.suffixes, captions.ending
        for name in sorted(listing):
            if (name[0] == "." and name.lower() not in IGNORED) or name in masks.names:
                continue
            stem, dot, suffix = name.rpartition(".")
            suffix = dot + suffix.lower()
            if suffix in suffixes and not _is_folder(listing[name]):
                self._take(base, name, stem, kind, captions, masks)
            elif suffix != ending:
                others.append((name, listing[name]))
        below = []
        for name, entry in others:
            if _is_folder(entry):
                below += self._folder(base, name, captions, masks)
            else:
                self._file(name, captions)
        if masks.names and self.dataset.use_masks:
            self._lone_masks(base, listing, captions, masks)
        return below

    def _lone_masks(self, base: str, names: Iterable[str], captions: _Captions, masks: FolderMasks) -> None:
        """Add a problem for each mask that is none of a clip, nor of a medium of the other kind."""
        others = {name.rpartition(".")[0] for name in names if name.lower().endswith(tuple(self.others))}
        for name in masks.without(captions.claimed | others):
            hint = "give it the name of its clip, move it, or set use_masks: false for the dataset"
            self.found.problems.append(
                Problem("a mask, but there is no clip of its name", hint, Place(Path(base, name)))
            )

    def _folder(self, base: str, name: str, captions: _Captions, masks: FolderMasks) -> list[str]:
        """Add a sub-folder as a clip, or return it if it has to be looked into."""
        place, caption = base + name, captions.of(name)
        if caption is None and name.lower() in IGNORED:
            self.ignored[name] = None
            return []
        try:
            if self.is_video and holds_images(place) and (caption is not None or not self._is_no_clip(place)):
                self._take(base, name, name, "frames", captions, masks)
                return []
        except OSError as error:
            self.found.problems.append(unreadable(Path(place), error, "folder"))
            return []
        if self.dataset.recursive:
            return [place]
        self.deeper += _captioned(place, self.suffixes, captions.ending)
        self.strays += _captioned(place, self.others, captions.ending)
        return []

    def _is_no_clip(self, place: str) -> bool:
        """Whether a folder with images but without a caption is not just a clip whose caption is missing."""
        with os.scandir(place) as entries:
            listing = [entry for entry in entries if not entry.name.startswith(".")]
        if self.dataset.recursive and any(_is_folder(each) and each.name.lower() not in IGNORED for each in listing):
            return True
        ending, names = self.dataset.caption_extension.lower(), [entry.name.lower() for entry in listing]
        stems = {name.removesuffix(ending) for name in names if name.endswith(ending)}
        return any(name.endswith(tuple(VIDEO_SUFFIXES)) or name.rpartition(".")[0] in stems for name in names)

    def _file(self, name: str, captions: _Captions) -> None:
        stem, dot, suffix = name.rpartition(".")
        suffix = dot + suffix.lower()
        if suffix in self.others:
            self.strays += 1
        elif suffix not in _SIDECARS and stem and stem not in captions.claimed and captions.of(stem) is not None:
            self.unread.append(name)

    def _take(self, base: str, name: str, stem: str, kind: MediaKind, captions: _Captions, masks: FolderMasks) -> None:
        captions.claimed.add(stem)
        file = captions.of(stem)
        place = base + name
        mask = self._mask(base, stem, masks) if masks.names and self.dataset.use_masks else None
        if file is not None:
            caption_file = base + file
            try:
                caption = read_caption(caption_file)
            except (OSError, ValueError) as error:
                reason = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
                advice = "save the files that are not as UTF-8" if reason.startswith("not UTF-8") else ""
                where = Place(Path(base, file))
                self.found.problems.append(CaptionProblem(reason, advice, where, place, caption_file, reason))
            else:
                self.found.add(place, kind, caption, caption_file, mask=mask)
        elif self.dataset.default_caption is not None:
            self.found.add(place, kind, None, base + stem + self.dataset.caption_extension, mask=mask)
        else:
            self._missing(base, name, stem, captions)

    def _mask(self, base: str, stem: str, masks: FolderMasks) -> str | None:
        """Return the path of a clip's mask; None if it has none, and a problem if it has several."""
        found = masks.of(stem)
        if len(found) > 1:
            self.found.problems.append(
                Problem(f"one of several masks of a clip: {', '.join(found)}", "keep one", Place(Path(base, found[0])))
            )
            return None
        return base + found[0] if found else None

    def _missing(self, base: str, name: str, stem: str, captions: _Captions) -> None:
        expected = stem + self.dataset.caption_extension
        near = captions.near(name, stem) if len(self.found.problems) < MOST_LISTED else None
        message = f"no caption, expected in {expected}" + (f"; there is {near}" if near else "")
        hint, place = _RENAME if near else _WRITE, Place(Path(base, name))
        self.found.problems.append(CaptionProblem(message, hint, place, base + name, base + expected))

    def conclude(self, folder: Path) -> None:
        """Note which files were not used; it is a problem if no media were found."""
        wanted, other = ("video", "image") if self.is_video else ("image", "video")
        unused = []
        if self.strays:
            unused.append(f"{counted(self.strays, other)}: use {other}_directory for them")
        if self.deeper:
            unused.append(f"{counted(self.deeper, f'captioned {wanted}')} in sub-folders: use recursive: true for them")
        if self.unread:
            names = ", ".join(self.unread[:MOST_LISTED]) + (" ..." if len(self.unread) > MOST_LISTED else "")
            unused.append(f"{counted(len(self.unread), 'captioned file')} with an unsupported ending: {names}")
        if not self.found.sources and not self.found.problems:
            nothing = f"no {wanted}s in this folder" + (f", but {'; '.join(unused)}" if unused else "")
            self.found.problems.append(Problem(nothing, place=Place(folder)))
        else:
            self.found.notes += [f"{folder}: not used: {each}" for each in unused]
        if self.ignored:
            names = ", ".join(self.ignored)
            self.found.notes.append(f"{folder}: ignored: {names} (folders of the system or of another program)")


class _Captions:
    """The caption files of one folder, by the names of their media."""

    def __init__(self, base: str, listing: Iterable[str], ending: str) -> None:
        self.base = base
        self.listing = listing
        self.ending = ending.lower()
        self.claimed: set[str] = set()
        """Names, without the suffix, of the media that were found."""
        self._exact = ending
        self._names = set(listing)
        self._folded: dict[str, str] | None = None

    def of(self, stem: str) -> str | None:
        """Return the name of the caption file of `stem`, or None.

        The case of the suffix does not matter, nor whether accents are separate characters (NFD, as on a Mac) or part
        of the letter (NFC).
        """
        name = stem + self._exact
        if name in self._names:
            return name
        if self._folded is None:
            unusual = (other for other in self._names if not (other.isascii() and other.endswith(self._exact)))
            self._folded = {self._fold(other): other for other in sorted(unusual, reverse=True)}
        return self._folded.get(self._fold(name))

    def _fold(self, name: str) -> str:
        length = len(self.ending)
        return normalize("NFC", name[:-length]) + name[-length:].lower()

    def near(self, name: str, stem: str) -> str | None:
        """Return the name of a file that is probably intended as the caption of the medium `name`, or None."""
        texts = (self.ending, ".txt", ".caption", ".text")
        likely = {other.lower(): other for other in sorted(self._names) if other.lower().endswith(texts)}
        for guess in (name + self.ending, stem + self.ending + self.ending, *(stem + ending for ending in texts)):
            if guess.lower() in likely:
                return likely[guess.lower()]
        free = [low for low, other in likely.items() if other.rpartition(".")[0] not in self.claimed]
        close = difflib.get_close_matches((stem + self.ending).lower(), free[:1000], n=1, cutoff=0.8)
        return likely[close[0]] if close else None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _captioned(folder: str, suffixes: Iterable[str], ending: str) -> int:
    """Count the media with captions in a folder and below it."""
    count = seen = 0
    for _, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name.lower() not in IGNORED]
        seen += len(names) + 1
        stems = {name.rpartition(".")[0] for name in names if name.lower().endswith(ending)}
        count += sum(
            name.lower().endswith(tuple(suffixes)) and name.rpartition(".")[0] in stems
            for name in names
            if not name.startswith(".")
        )
        if seen > _MOST_COUNTED:
            break
    return count
