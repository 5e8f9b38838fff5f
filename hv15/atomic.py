"""Files that are either complete or absent: write beside the target, flush to the disk, rename."""

from __future__ import annotations

import errno
import glob
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hv15.errors import UserError


@contextmanager
def atomic_path(target: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path in the target's folder; on success it becomes the target, on any failure it is removed.

    The temporary name keeps the target's suffix, because some writers choose their format by it. Without `durable`,
    writing is quicker but a power cut may leave a torn file: for files that are checked when read, and easily remade.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    target = Path(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.stem}.", suffix=f".tmp{target.suffix}", dir=target.parent)
    except OSError as error:
        raise _unwritable(target, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes private files; results are for the whole group
        if durable:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise _unwritable(target, error) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder beside the target; on success it takes the target's place, on any failure it is removed.

    Raises:
        UserError: the disk is full, the parent folder cannot be written, or the target is a file.
    """
    target = Path(target)
    temporary: Path | None = None
    if target.is_file():
        raise UserError.at(target, "expected a folder, found a file", hint="choose another name, or remove the file")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        old = temporary.with_suffix(".old")
        if target.exists():  # a folder that is not empty cannot be replaced in one step
            target.replace(old)
        try:
            temporary.replace(target)
        except OSError:
            if old.exists():
                old.replace(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise _unwritable(target, error) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


TORN = ".*.tmp*"
"""Matches all that is being written, or that a killed process has left."""


def remove_torn(target: Path) -> None:
    """Remove what killed processes left instead of a file or a folder. Nobody may be writing it now."""
    name, stem = glob.escape(target.name), glob.escape(target.stem)
    for file in target.parent.glob(f".{stem}.????????.tmp{glob.escape(target.suffix)}"):
        file.unlink(missing_ok=True)
    for folder in target.parent.glob(f".{name}.????????.tmp"):
        shutil.rmtree(folder, ignore_errors=True)


def check_writable(folder: Path) -> None:
    """Make a folder, and check that files can be written in it: before long work whose result goes there.

    Raises:
        UserError: it cannot be made or written, or is a file.
    """
    if folder.is_file():
        raise UserError.at(folder, "expected a folder, found a file", hint="choose another name, or remove the file")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from error


def write_text(target: Path, text: str) -> None:
    """Write UTF-8 text atomically.

    Raises:
        UserError: see `atomic_path`.
    """
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, value: object, *, durable: bool = True, compact: bool = False) -> None:
    """Write JSON with sorted keys atomically, so that equal values give equal bytes.

    Args:
        compact: without the white space that is for people; such a file is read in two thirds of the time.

    Raises:
        UserError: see `atomic_path`.
    """
    indent, separators = (None, (",", ":")) if compact else (1, None)
    text = json.dumps(value, indent=indent, separators=separators, sort_keys=True, ensure_ascii=False) + "\n"
    with atomic_path(target, durable=durable) as temporary:
        # A file name that is not UTF-8 holds lone surrogates here. Escaped, they are valid JSON and read back the same.
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


_FULL = "free some disk space or choose another folder, then run the same command again: finished work is kept"
_IN_THE_WAY = "something else has that name, or that of a folder above it: choose another name"
_FORBIDDEN = "choose a folder that you may write to, or change its permissions"
_CURES = {
    errno.EISDIR: _IN_THE_WAY,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EEXIST: _IN_THE_WAY,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: _FORBIDDEN,
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: _FORBIDDEN,
}


def _unwritable(target: Path, error: OSError) -> UserError:
    # Any other error counts as a full disk, because some writers give no errno for it.
    cure = _CURES.get(error.errno or 0, _FULL)
    return UserError.at(target, f"cannot be written: {error.strerror or error}", hint=cure)
