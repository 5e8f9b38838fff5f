"""Media files: their kinds, locations and properties, and the error about a single file."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from hv15.data.frames import Timeline
from hv15.errors import UserError

MediaKind = Literal["video", "image", "frames"]
"""A video file, an image file, or a folder of images that is one clip."""

VIDEO_SUFFIXES = {
    *(".mp4", ".m4v", ".mov", ".qt", ".mkv", ".webm", ".avi", ".flv", ".f4v", ".wmv", ".asf", ".3gp", ".3g2", ".ogv"),
    *(".mpg", ".mpeg", ".mpe", ".vob", ".m2v", ".ts", ".mts", ".m2ts", ".m2t", ".mxf", ".y4m", ".gif", ".apng"),
}
IMAGE_SUFFIXES = {
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".avif", ".tif", ".tiff", ".heic", ".heif"),
}


class MediaError(UserError):
    """One file cannot be used. Callers skip and report it, or stop; other files are not affected."""

    def __init__(self, path: Path, reason: str, *, hint: str = "") -> None:
        super().__init__(f"{path}: {reason}", hint=hint, place=str(path))
        self.path, self.reason = path, reason


class MediaFile(Protocol):
    """A media file with its stamp, see `Source`."""

    @property
    def place(self) -> str: ...

    @property
    def path(self) -> Path: ...

    @property
    def kind(self) -> MediaKind: ...

    @property
    def size(self) -> int: ...

    @property
    def mtime_ns(self) -> int: ...

    @property
    def inode(self) -> int: ...


class MaskFile(NamedTuple):
    """The mask of a clip (`hv15.data.masks`), with its stamp as in `Source`."""

    place: str
    kind: MediaKind
    size: int
    mtime_ns: int
    inode: int

    @property
    def path(self) -> Path:
        return Path(self.place)


class Source(NamedTuple):
    """One captioned media file that a scan found. It has a stamp (size, time, inode), but was not opened yet.

    For a folder of images, `size` is the sum over its files, `mtime_ns` their newest time, and `inode` a number that
    changes when any of its files changes.
    """

    place: str
    """Its path, as text, because a Path for each of 100,000 files would take longer than finding them."""
    kind: MediaKind
    caption: str
    """The text including prefix and suffix; the first, if a training draws from several."""
    size: int
    """Size in bytes."""
    mtime_ns: int
    inode: int
    caption_file: str
    """The path of the file with the caption, or where it is expected."""
    row: int | None = None
    """The line of that file, from 0, if it is a JSONL file."""
    is_default: bool = False
    """Whether the caption is `default_caption`, because the file has no caption."""
    written: str = ""
    """The caption as its file has it, with a line for each entry of a list in a JSONL file."""
    is_list: bool = False
    """Whether it is such a list."""
    others: tuple[str, ...] = ()
    """Further texts from which a training draws."""
    mask: MaskFile | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts from which a training draws."""
        return (self.caption, *self.others)

    @property
    def path(self) -> Path:
        return Path(self.place)


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """The properties of a media file. Height and width are those of the upright picture with square pixels."""

    path: Path
    kind: MediaKind
    height: int
    width: int
    alpha: bool
    timeline: Timeline
    """The times of the frames. A still image has one frame."""
    pts: tuple[int, ...] | None = None
    """For a video, the container's timestamps, ascending; None if they are unusable, so that frames are counted."""
    keyframes: tuple[int, ...] = ()
    """For a video, the timestamps at which decoding can start; empty if seeking is not exact."""
    notes: tuple[str, ...] = ()
    """Notes for the user, without the file's name, such as frames that are left out."""


def natural_key(name: str) -> tuple[tuple[int, str], ...]:
    """Return a sort key that puts `frame_9.png` before `frame_10.png`."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", name) if part)


def frame_files(folder: Path) -> list[Path]:
    """Return the images of a folder that is one clip, in the natural order of their names."""
    files = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]
    return sorted(files, key=lambda path: (natural_key(path.name), path.name))


def holds_images(folder: str) -> bool:
    """Whether a folder holds images, so that it can be a clip.

    Raises:
        OSError: it cannot be read.
    """
    with os.scandir(folder) as entries:
        return any(entry.name.lower().endswith(tuple(IMAGE_SUFFIXES)) for entry in entries)


def stamp(path: str | Path, kind: MediaKind) -> tuple[int, int, int]:
    """Return (bytes, mtime in ns, inode) of a media file, or of a folder of images as `Source` describes it.

    Raises:
        OSError: it cannot be read, or is not a regular file.
    """
    if kind != "frames":
        status = os.stat(path)  # noqa: PTH116 (as for Source.place)
        if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device might never end
            raise OSError(errno.EINVAL, "not a regular file")
        return status.st_size, status.st_mtime_ns, status.st_ino
    each = [stamp(file, "image") for file in frame_files(Path(path))]
    mark = hashlib.sha256(repr(each).encode()).digest()
    return sum(size for size, _, _ in each), max((time for _, time, _ in each), default=0), int.from_bytes(mark[:6])
