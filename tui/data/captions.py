"""One captioned medium, and the editing of its caption in place: in a file of its own or in a row of a list."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from hv15.atomic import atomic_path
from hv15.data.captions import decode_text, plain, read_caption
from hv15.data.media import MaskFile, MediaKind
from hv15.errors import UserError

NO_CAPTION = "no caption yet"


@dataclass(frozen=True)
class Item:
    """One captioned video, image or folder of images."""

    dataset: int
    """Its place in `datasets`."""
    path: Path
    kind: MediaKind
    caption: str
    """As written in its file, without prefix and suffix."""
    caption_file: Path
    row: int | None = None
    """Line (from 0) of a JSONL file; None for a file of its own."""
    is_default: bool = False
    """Whether it has no caption of its own, and `caption` is `default_caption`."""
    is_list: bool = False
    """Whether the row has a list of captions; `caption` has a line for each."""
    prefix: str = ""
    suffix: str = ""
    size: int = 0
    """Bytes."""
    mtime_ns: int = 0
    inode: int = 0
    mask: MaskFile | None = None
    frames: int | None = None
    """Of the source; None until it was probed, as all below."""
    height: int | None = None
    width: int | None = None
    seconds: float | None = None
    clips: tuple[str, ...] = ()
    """What is cut from it: frames x height x width."""
    problem: str = ""

    @property
    def probed(self) -> bool:
        return self.frames is not None or bool(self.problem and self.problem != NO_CAPTION)


def write_caption(item: Item, text: str) -> Item:
    """Write another caption into the item's file, or into its row of a JSONL file, and return the item with it.

    Raises:
        UserError: somebody else changed it meanwhile, it is not text, or it cannot be written.
    """
    text = plain(text)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError.at(item.caption_file, "the caption holds half a character", hint="type it again") from error
    if "\0" in text:
        raise UserError.at(item.caption_file, "the caption holds a zero byte", hint="remove it")
    target = item.caption_file.resolve()  # a link stays a link
    try:
        mode = target.stat().st_mode & 0o7777 if target.exists() else None
        data = _in_row(item, target, text) if item.row is not None else _as_file(item, target, text)
    except OSError as error:
        raise UserError.at(target, f"cannot be read: {error.strerror}", hint="check its permissions") from error
    if mode is not None and not os.access(target, os.W_OK):
        raise UserError.at(target, "is write-protected", hint="`chmod u+w` it, then save again")
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)
    if mode is not None:
        target.chmod(mode)
    return replace(item, caption=text, is_default=False, problem="" if item.problem == NO_CAPTION else item.problem)


def _as_file(item: Item, target: Path, text: str) -> bytes:
    try:
        now = read_caption(str(target))
    except FileNotFoundError:
        now = ""
    except ValueError as error:
        raise UserError.at(target, f"{error}", hint="write it as UTF-8, or remove it: it is not overwritten") from error
    if now != ("" if item.is_default else item.caption):
        raise _changed(target)
    return f"{text}\n".encode()


def _in_row(item: Item, target: Path, text: str) -> bytes:
    lines = target.read_bytes().split(b"\n")
    assert item.row is not None
    try:
        line = lines[item.row]
        row = json.loads(decode_text(line))
        same = row.get("caption") is None if item.is_default else _text_in(row["caption"]) == item.caption
    except (IndexError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _changed(target) from None
    if not same:
        raise _changed(target)
    caption: str | list[str] = text
    if item.is_list:
        if any("\n" in plain(each) for each in row["caption"]):
            raise UserError.at(target, "one of these captions has several lines", hint="edit them in the file itself")
        caption = [entry for part in text.split("\n") if (entry := plain(part))] or [""]
    new = json.dumps(caption, ensure_ascii=False).encode()
    found: list[bytes] = []
    if not item.is_default:
        written = {json.dumps(row["caption"], ensure_ascii=ascii_only).encode() for ascii_only in (True, False)}
        found = [old for old in written if line.count(b": " + old) + line.count(b":" + old) == 1]
    if len(found) == 1 and line.count(found[0]) == 1:  # the rest of the line stays as it is
        changed = line.replace(found[0], new)
    else:
        changed = json.dumps({**row, "caption": caption}, ensure_ascii=False).encode()
    if json.loads(changed) != {**row, "caption": caption}:
        raise _changed(target)
    return b"\n".join([*lines[: item.row], changed, *lines[item.row + 1 :]])


def _text_in(caption: str | list[str]) -> str:
    """The caption of a row as `Item.caption` has it."""
    return "\n".join(map(plain, caption)) if isinstance(caption, list) else plain(caption)


def _changed(target: Path) -> UserError:
    return UserError.at(target, "was changed by another program", hint="r reads it again; esc then drops your text")
