"""Reads a JSONL file whose rows name a media file and give its caption."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.data.captions import MOST_CAPTION, decode_text, plain
from hv15.data.media import holds_images
from hv15.data.musubi import not_used
from hv15.data.paths import brief, cure, find, near
from hv15.data.survey import Survey, counted, unreadable
from hv15.records.problems import Place, Problem

if TYPE_CHECKING:
    from hv15.config.datasets import DatasetSettings

MOST_BYTES = 1 << 30
"""The largest file that is read."""

_ONE_LINE = "write one object per line: for a list use `jq -c '.[]' old.json > new.jsonl`, for objects `jq -c .`"
_ESCAPE = 'a backslash begins an escape in JSON: write a path with / ("D:/clips/a.mp4"), or each backslash twice'

Row = dict[str, object]


def scan_rows(file: Path, root: Path, found: Survey) -> None:
    """Add the media of a JSONL file to `found`. Their paths start at the file's folder, or else the project folder."""
    name = "video_path" if found.dataset.kind == "video" else "image_path"
    try:
        data = _content(file)
    except OSError as error:
        found.problems.append(unreadable(file, error, "file"))
        return
    unused: dict[str, int] = {}
    for number, row in _rows(file, data, found.problems):
        place = Place(file, number + 1)
        for note in filter(None, map(not_used, row)):
            unused[note] = unused.get(note, 0) + 1
        path, caption, mask = row.get(name), row.get("caption"), row.get("mask_path")
        if not isinstance(path, str) or not path:
            keys = brief(", ".join(row)) or "nothing"
            found.problems.append(Problem(f'expected "{name}" with a path, found {keys}', place=place))
        elif mask is not None and (not isinstance(mask, str) or not mask):
            found.problems.append(Problem('expected a path in "mask_path"', place=place))
        elif (trouble := _trouble(caption, path, found.dataset)) is not None:
            found.problems.append(Problem(trouble, place=place))
        else:
            _add(place, path, caption, mask, root, found)
    found.notes += [f"{file}: {note} (in {counted(rows, 'row')})" for note, rows in unused.items()]
    if not found.sources and not found.problems:
        found.problems.append(Problem("no rows in this file", place=Place(file)))


def _content(file: Path) -> bytes:
    """Read a regular file of bounded size, because reading a pipe or a device might never end."""
    status = file.stat()
    if not stat.S_ISREG(status.st_mode) and not file.is_dir():
        raise OSError(0, "not a regular file")
    if status.st_size > MOST_BYTES:
        raise OSError(0, f"{status.st_size >> 20} MiB, expected at most {MOST_BYTES >> 20} MiB")
    return file.read_bytes()


def _trouble(caption: object, path: str, dataset: DatasetSettings) -> str | None:
    """Return the problem with a row's caption; None if there is none."""
    if caption is None and dataset.default_caption is not None:
        return None
    if isinstance(caption, list):
        if not dataset.caption_variants:
            return f'"caption" is a list for {brief(path)}: set caption_variants: true to draw from it'
        if not caption:
            return f'"caption" is an empty list for {brief(path)}'
        return next((trouble for each in caption if (trouble := _text_trouble(each, path)) is not None), None)
    return _text_trouble(caption, path)


def _text_trouble(caption: object, path: str) -> str | None:
    if not isinstance(caption, str):
        return f'expected "caption" with a text for {brief(path)}'
    if "\0" in caption:
        return "the caption holds a NUL character"
    if len(caption) > MOST_CAPTION:
        return f"more than {MOST_CAPTION >> 10} KiB, expected a caption"
    try:
        caption.encode()
    except UnicodeEncodeError:
        return "the caption holds half a character (an escape \\ud800 to \\udfff alone)"
    return None


def _rows(file: Path, data: bytes, problems: list[Problem]) -> Iterator[tuple[int, Row]]:
    """Yield (line from 0, object) for each line that holds an object."""
    if shape := _whole_shape(data):
        problems.append(Problem(f"found {shape}, expected one object per line", _ONE_LINE, Place(file)))
        return
    for number, line in enumerate(data.split(b"\n")):
        if not line.strip():
            continue
        place = Place(file, number + 1)
        try:
            row = json.loads(decode_text(line))
        except json.JSONDecodeError as error:
            escape = _ESCAPE if "escape" in error.msg else ""
            problems.append(Problem(f"not JSON: {error.msg}", escape, Place(file, number + 1, error.colno)))
        except RecursionError:
            problems.append(Problem("nested too deeply, expected an object with a path and a caption", place=place))
        except ValueError as error:
            reason = f"{error} of the line" if "offset" in str(error) else str(error)
            problems.append(Problem(reason, place=place))
        else:
            if isinstance(row, dict):
                yield number, row
            else:
                problems.append(Problem(f"expected an object in braces, found {type(row).__name__}", place=place))


def _whole_shape(data: bytes) -> str | None:
    """Describe a file that is JSON instead of JSONL; None if it may be JSONL."""
    first = re.sub(rb"\s", b"", data.removeprefix(b"\xef\xbb\xbf").lstrip()[:200].split(b"\n")[0])
    if first.startswith(b"[{") or first == b"[":
        return "a JSON array"
    return "a JSON object over several lines" if first == b"{" else None


def _add(place: Place, path: str, caption: object, mask: str | None, root: Path, found: Survey) -> None:
    """Add a row whose caption is a text, a list of texts, or None."""
    assert place.file is not None
    assert place.line is not None
    listed = [plain(str(each)) for each in caption] if isinstance(caption, list) else None
    text = plain(caption) if isinstance(caption, str) else None if listed is None else "\n".join(listed)
    is_video = found.dataset.kind == "video"
    media = _found(place, path, root, found)
    its_mask = None if mask is None or not found.dataset.use_masks else _found(place, mask, root, found)
    if media is None:
        return
    if not os.path.isdir(media):  # noqa: PTH112 (100,000 rows)
        found.add(media, "video" if is_video else "image", text, str(place.file), place.line - 1, listed, its_mask)
    elif is_video and _is_clip(media):
        found.add(media, "frames", text, str(place.file), place.line - 1, listed, its_mask)
    else:
        lack = " without images" if is_video else ", expected an image"
        found.problems.append(Problem(f"{brief(path)} is a folder{lack}", place=place))


def _found(place: Place, path: str, root: Path, found: Survey) -> str | None:
    """Return the location of a path in a row; None, and a problem, if it does not exist."""
    assert place.file is not None
    location, tried = find(path, (place.file.parent, root))
    if location is None:
        why = cure(path)
        shown = brief(repr(path) if why else path)
        found.problems.append(Problem(f"{shown} does not exist{'' if why else near(Path(tried))}", why, place))
    return location


def _is_clip(folder: str) -> bool:
    try:
        return holds_images(folder)
    except OSError:
        return False
