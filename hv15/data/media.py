"""What a media file is: where it lies, what it shows, and the error that concerns one file alone."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

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
    """One file cannot be used. Callers skip the file and report it, or stop; other files are not concerned."""


class Source(NamedTuple):
    """One captioned media file as a scan finds it: known by its stamp (size, time, inode), not yet opened.

    For a folder of images, `size` is the sum of its files, `mtime_ns` the newest time in it, and `inode` a number that
    changes when any file in it changes.
    """

    place: str
    """Its path. As text: a Path for each of 100,000 files would cost more than finding them."""
    kind: MediaKind
    caption: str
    """The text after prefix and suffix rules."""
    size: int
    """Bytes."""
    mtime_ns: int
    inode: int
    caption_file: str
    """The path of the file that holds the caption, or should."""
    row: int | None = None
    """Line of that file, from 0, if it is a JSONL file."""
    is_default: bool = False
    """Whether it has no caption of its own, so that `default_caption` takes its place."""

    @property
    def path(self) -> Path:
        return Path(self.place)


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What a file shows, without its pixels. Height and width are those of the upright picture with square pixels."""

    path: Path
    kind: MediaKind
    height: int
    width: int
    alpha: bool
    timeline: Timeline
    """When each frame is shown. A still image has one frame."""
    pts: tuple[int, ...] | None = None
    """Video: the container's timestamp of each frame, ascending; None if it has no good ones: frames are counted."""
    keyframes: tuple[int, ...] = ()
    """Video: the timestamps at which decoding can start; empty where jumping is not exact."""
    notes: tuple[str, ...] = ()
    """What a person should know of it, without its name: colours that are taken as they are, frames left out."""


def natural_key(name: str) -> tuple[tuple[int, str], ...]:
    """Sort key that puts `frame_9.png` before `frame_10.png`."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", name) if part)


def frame_files(folder: Path) -> list[Path]:
    """Return the images of a folder that is one clip, in natural order of their names."""
    files = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]
    return sorted(files, key=lambda path: (natural_key(path.name), path.name))


def holds_images(folder: str) -> bool:
    """Whether a folder can be a clip.

    Raises:
        OSError: it cannot be read.
    """
    with os.scandir(folder) as entries:
        return any(entry.name.lower().endswith(tuple(IMAGE_SUFFIXES)) for entry in entries)


def stamp(path: str | Path, kind: MediaKind) -> tuple[int, int, int]:
    """Return (bytes, mtime in ns, inode) of a media file, or of a folder of images as `Source` describes it.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    if kind != "frames":
        status = os.stat(path)  # noqa: PTH116 (as for Source.place)
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device would be read for ever
            raise OSError(errno.EINVAL, "not a regular file")
        return status.st_size, status.st_mtime_ns, status.st_ino
    each = [stamp(file, "image") for file in frame_files(Path(path))]
    mark = hashlib.sha256(repr(each).encode()).digest()
    return sum(size for size, _, _ in each), max((time for _, time, _ in each), default=0), int.from_bytes(mark[:6])
