"""Finds the captioned media of a dataset: names, stamps and captions, no media file is opened.

A scan runs each time that a workflow is planned, so it is quick at 100,000 files; and it reports what is wrong with a
dataset as a whole, not the first mistake only.
"""

# ruff: noqa: PTH110, PTH112, PTH116, PTH118, PTH119, PTH208
# A Path for each of 100,000 names would cost more than all the rest.

from __future__ import annotations

import difflib
import errno
import hashlib
import json
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.data.captions import decode_text, read_caption
from hv15.data.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Kind, Source, frame_files
from hv15.errors import UserError
from hv15.records.json_values import Json, JsonObject

if TYPE_CHECKING:
    from hv15.config.datasets import DatasetSettings

SHOWN = 10
"""How many problems of a dataset are listed; the rest is counted."""

log = logging.getLogger(__name__)


def scan(dataset: DatasetSettings, root: Path) -> list[Source]:
    """Return the captioned media of one dataset, in the order of their names (or of the rows of its JSONL file).

    Args:
        dataset: its settings; the source path is relative to `root`.
        root: the project folder.

    Raises:
        UserError: a path is wrong, nothing is found, or captions are missing or not UTF-8: all problems at once.
    """
    sources, problems = survey(dataset, root)
    place = root / dataset.source
    if problems:
        shown = problems[:SHOWN] + ([f"... and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else [])
        heading = f"{place}: {len(problems)} problems" if len(problems) > 1 else ""
        raise UserError("\n  ".join([heading, *shown] if heading else shown), hint=_cure(problems))
    return sources


def survey(dataset: DatasetSettings, root: Path) -> tuple[list[Source], list[str]]:
    """Return what can be used of a dataset, as `scan` does, and what is wrong with the rest of it."""
    is_video = dataset.kind == "video"
    place = root / dataset.source
    problems: list[str] = []
    if dataset.video_directory is not None or dataset.image_directory is not None:
        return _scan_folder(place, is_video, dataset, problems), problems
    return _scan_rows(place, root, is_video, dataset, problems), problems


def _scan_folder(folder: Path, is_video: bool, dataset: DatasetSettings, problems: list[str]) -> list[Source]:
    """List a folder: media files, and in a video dataset also sub-folders of images."""
    try:
        with os.scandir(folder) as entries:
            listing = {entry.name: entry for entry in entries}
    except OSError as error:
        problems.append(_unreadable(folder, error, "folder"))
        return []
    found: Kind
    kind: Kind = "video" if is_video else "image"
    suffixes = VIDEO_SUFFIXES if is_video else IMAGE_SUFFIXES
    base, ending = os.path.join(folder, ""), dataset.caption_extension
    before, after = dataset.caption_prefix, dataset.caption_suffix
    sources: list[Source] = []
    strays = 0
    for name in sorted(listing):
        if name.startswith("."):
            continue
        stem, dot, suffix = name.rpartition(".")
        suffix, entry = dot + suffix.lower(), listing[name]
        if suffix in suffixes and not entry.is_dir():
            found, caption_file = kind, f"{base}{stem}{ending}"
        elif is_video and entry.is_dir() and _holds_images(entry.path):
            found, caption_file = "frames", f"{base}{name}{ending}"
        else:
            strays += suffix in (IMAGE_SUFFIXES if is_video else VIDEO_SUFFIXES)
            continue
        caption = _sidecar(entry.path, caption_file, problems)
        if caption is not None:
            sources.extend(_source(entry.path, found, f"{before}{caption}{after}", problems))
    other = "images" if is_video else "videos"
    if not sources and not problems:
        cure = f", but {strays} {other}: use {other[:-1]}_directory" if strays else ""
        problems.append(f"{folder}: no {'videos' if is_video else 'images'} in this folder{cure}")
    elif strays:
        log.info("%s: %d %s beside the %ss are not used", folder, strays, other, kind)
    return sources


def _holds_images(folder: str) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.name.lower().endswith(tuple(IMAGE_SUFFIXES)) for entry in entries)


def _sidecar(media: str, caption_file: str, problems: list[str]) -> str | None:
    try:
        return read_caption(caption_file)
    except FileNotFoundError:
        problems.append(f"{media}: no caption, expected in {os.path.basename(caption_file)}")
    except OSError as error:
        problems.append(f"{caption_file}: cannot be read: {error.strerror}")
    except ValueError as error:
        problems.append(f"{caption_file}: {error}")
    return None


def _scan_rows(file: Path, root: Path, is_video: bool, dataset: DatasetSettings, problems: list[str]) -> list[Source]:
    """Read a JSONL file whose rows name a media file and give its caption."""
    name = "video_path" if is_video else "image_path"
    try:
        data = file.read_bytes()
    except OSError as error:
        problems.append(_unreadable(file, error, "file"))
        return []
    sources: list[Source] = []
    for number, row in _rows(file, data, problems):
        place = f"{file}:{number}"
        path, caption = row.get(name), row.get("caption")
        if not isinstance(path, str) or not path:
            keys = ", ".join(map(str, row)) or "nothing"
            problems.append(f'{place}: expected "{name}" with a path, found {keys}')
        elif not isinstance(caption, str):
            problems.append(f'{place}: expected "caption" with a text for {path}')
        elif not _is_text(caption):
            problems.append(f"{place}: the caption holds half a character (an escape \\ud800 to \\udfff alone)")
        else:
            text = f"{dataset.caption_prefix}{caption.strip()}{dataset.caption_suffix}"
            sources.extend(_row_source(place, path, text, (file.parent, root), is_video, problems))
    if not sources and not problems:
        problems.append(f"{file}: no rows in this file")
    return sources


def _is_text(caption: str) -> bool:
    """Whether a caption can be written as UTF-8: JSON may escape one half of a surrogate pair."""
    try:
        caption.encode()
    except UnicodeEncodeError:
        return False
    return True


def _rows(file: Path, data: bytes, problems: list[str]) -> Iterator[tuple[int, JsonObject]]:
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row: Json = json.loads(decode_text(line))
        except json.JSONDecodeError as error:
            problems.append(f"{file}:{number}:{error.colno}: not JSON: {error.msg}")
        except ValueError as error:
            problems.append(f"{file}:{number}: {error} of the line")
        else:
            if isinstance(row, dict):
                yield number, row
            else:
                problems.append(f"{file}:{number}: expected an object in braces, found {type(row).__name__}")


def _row_source(
    place: str, path: str, text: str, folders: tuple[Path, ...], is_video: bool, problems: list[str]
) -> list[Source]:
    """Look beside the JSONL file first, then in the project folder."""
    tried = [os.path.join(folder, path) for folder in folders]
    found = next((candidate for candidate in tried if os.path.exists(candidate)), None)
    if found is None:
        problems.append(f"{place}: {path} does not exist{_near(Path(tried[0]))}")
        return []
    if os.path.isdir(found):
        if is_video and _holds_images(found):
            return _source(found, "frames", text, problems)
        problems.append(f"{place}: {path} is a folder" + (" without images" if is_video else ", expected an image"))
        return []
    return _source(found, "video" if is_video else "image", text, problems)


def _source(path: str, kind: Kind, caption: str, problems: list[str]) -> list[Source]:
    try:
        size, mtime_ns, inode = stamp(path, kind)
    except OSError as error:
        problems.append(f"{path}: cannot be read: {error.strerror}")
        return []
    return [Source(Path(path), kind, caption, size, mtime_ns, inode)]


def stamp(path: str | Path, kind: Kind) -> tuple[int, int, int]:
    """Return (bytes, mtime in ns, inode) of a media file, or of a folder of images as `Source` describes it."""
    if kind != "frames":
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device would be read for ever
            raise OSError(errno.EINVAL, "not a regular file")
        return status.st_size, status.st_mtime_ns, status.st_ino
    each = [stamp(file, "image") for file in frame_files(Path(path))]
    mark = hashlib.sha256(repr(each).encode()).digest()
    return sum(size for size, _, _ in each), max((time for _, time, _ in each), default=0), int.from_bytes(mark[:6])


def _unreadable(path: Path, error: OSError, expected: str) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{path}: does not exist{_near(path)}"
    if isinstance(error, NotADirectoryError | IsADirectoryError):
        return f"{path}: expected a {expected}, found a {'folder' if path.is_dir() else 'file'}"
    return f"{path}: cannot be read: {error.strerror}"


def _near(path: Path) -> str:
    """Suggest names like that of a missing file, in the deepest folder of its path that exists."""
    missing, parent = path.name, path.parent
    while not parent.is_dir() and parent != parent.parent:
        missing, parent = parent.name, parent.parent
    try:
        matches = difflib.get_close_matches(missing, os.listdir(parent)[:10_000], n=1)
    except OSError:
        return ""
    return f"; did you mean {parent / matches[0]}?" if matches else ""


def _cure(problems: list[str]) -> str:
    cures = {
        ": no caption, ": "write a text file beside each, or set caption_extension to the ending of your captions",
        ": not UTF-8": "save the files that are not as UTF-8",
    }
    if found := [cure for words, cure in cures.items() if any(words in problem for problem in problems)]:
        return "; ".join(found)
    return "correct `datasets` in config.yaml, or the files; relative paths start at the project folder"
