"""Fingerprints that identify the content of a model in milliseconds, without hashing 16 GB. Needs no torch.

For a file: sha256 over its safetensors header, its size and 64 evenly spaced blocks of 1 MiB (all of it up to 64 MiB).
For a folder: the digest of its files' fingerprints by relative name, without hidden files and *.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from hv15.digest import digest
from hv15.errors import UserError
from hv15.models.weights.header import read_header, refuse_pickle, unreadable
from hv15.remembered import Memory
from hv15.stamp import stamp

VERSION = 1
"""Of the file that remembers fingerprints; raised together with `_VERSION`."""
_BLOCK = 2**20
_BLOCKS = 64
_VERSION = b"hv15 model fingerprint 1\n"


class FingerprintCache:
    """Fingerprints of known files, valid while size, mtime_ns and inode are unchanged; the caller must call `save`."""

    def __init__(self, path: Path) -> None:
        self._memory = Memory(path, VERSION, "the fingerprints of models are computed again")

    def fingerprint(self, file: Path) -> str:
        """Return the fingerprint of a file, computed only if the file has changed since the last time."""
        key, found = str(file.resolve()), stamp(file)
        known = self._memory.entries.get(key)
        if found is not None and isinstance(known, list) and known[:3] == [*found]:
            return str(known[3])
        value = _file_fingerprint(file)
        if found is not None:
            self._memory.learn(key, [*found, value])
        return value

    def save(self) -> None:
        """Write new fingerprints to the file, atomically, if there are any and it can be written."""
        self._memory.save()


def model_fingerprint(path: Path, cache: FingerprintCache | None = None) -> str:
    """Return the fingerprint (sha256, hex) of a model file or folder.

    Raises:
        UserError: the path does not exist, cannot be read, is a pickle or an empty folder, or a .safetensors file is
            damaged. Planning takes fingerprints, so these are refused before any work is done.
    """
    path = Path(path)
    refuse_pickle(path)
    fingerprint = cache.fingerprint if cache is not None else _file_fingerprint
    try:
        return _model_fingerprint(path, fingerprint)
    except OSError as error:
        raise unreadable(path, error) from error


def _model_fingerprint(path: Path, fingerprint: Callable[[Path], str]) -> str:
    if path.is_file():
        return fingerprint(path)
    if not path.is_dir():
        raise UserError.at(path, "no such file or folder", hint="check the path")
    files = [
        file
        for file in sorted(path.rglob("*"))
        if file.is_file()
        and file.suffix.lower() != ".md"
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]
    if not files:
        raise UserError.at(path, "an empty folder", hint="check the path")
    return digest({file.relative_to(path).as_posix(): fingerprint(file) for file in files})


def _file_fingerprint(file: Path) -> str:
    hasher = hashlib.sha256(_VERSION)
    size = file.stat().st_size
    hasher.update(size.to_bytes(8, "little"))
    if file.suffix.lower() == ".safetensors":
        hasher.update(read_header(file).raw)
    with file.open("rb") as handle:
        if size <= _BLOCK * _BLOCKS:
            hasher.update(handle.read())
        else:
            for block in range(_BLOCKS):
                handle.seek(block * (size - _BLOCK) // (_BLOCKS - 1))
                hasher.update(handle.read(_BLOCK))
    return hasher.hexdigest()
