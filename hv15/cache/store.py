"""The content-addressed store of encoded items: `<root>/store/<kind>/<settings digest>/<key>.safetensors`.

Items are not declared to Snakemake, so none of its flags can delete them. An item is complete or absent, and is checked
each time it is read, by the sha256 of its tensors in its metadata. A damaged item is reported, and encoded again by the
next encoding job. The digest takes about 0.6 ms per megabyte (bench/bench_store.py), in the threads that read ahead of
the training.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.atomic import atomic_path
from hv15.errors import UserError
from hv15.records.cache_paths import CachePaths
from hv15.records.paths import EncodedKind

if TYPE_CHECKING:
    from torch import Tensor

# The tensors of an item of each kind, with their numbers of axes; `vision` is there for i2v only.
REQUIRED: dict[EncodedKind, dict[str, int]] = {
    "latents": {"latents": 4},
    "text": {"text": 2, "glyphs": 2},
    "masks": {"mask": 3},
}
OPTIONAL: dict[EncodedKind, dict[str, int]] = {"latents": {"vision": 2}, "text": {}, "masks": {}}

_SUFFIX = ".safetensors"
SHA256 = "sha256"
"""The entry of an item's metadata that names its content."""


class BrokenItemError(UserError):
    """A store item that cannot be used: missing, damaged, of wrong shape, or with NaN."""


class Store:
    """The items of one kind that were encoded with one set of settings."""

    def __init__(self, root: Path, kind: EncodedKind, settings_digest: str) -> None:
        self.kind: EncodedKind = kind
        self.folder = CachePaths(Path(root)).items(kind) / settings_digest

    def path(self, key: str) -> Path:
        """Return the file of an item, in a folder named after two hex digits of the key, so that folders stay small."""
        return self.folder / key[:2] / f"{key}{_SUFFIX}"

    def has(self, key: str) -> bool:
        """Whether an item's file exists; its content is checked when it is read."""
        return self.path(key).is_file()

    def all_keys(self) -> Iterator[str]:
        """Yield all keys in the store, in no particular order."""
        for folder in _names(self.folder):
            if len(folder) == 2:
                names = _names(self.folder / folder)
                yield from (name[: -len(_SUFFIX)] for name in names if name.endswith(_SUFFIX) and name[0] != ".")

    def folder_times(self) -> list[tuple[str, int, int]]:
        """Return the name, mtime in ns and inode of each folder of items: adding or removing an item changes a time."""
        try:
            with os.scandir(self.folder) as entries:
                folders = [(entry.name, entry.stat()) for entry in entries if len(entry.name) == 2]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted((name, found.st_mtime_ns, found.st_ino) for name, found in folders)

    def write(self, key: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Write an item atomically.

        Args:
            tensors: latents [C, F, h, w] and perhaps vision [729, 1152], or text and glyphs [L, D], or mask [F, h, w].

        Raises:
            UserError: the disk is full, or the tensors hold NaN, because of the model or its precision.
        """
        from safetensors.torch import save

        problem = _problem(self.kind, tensors)
        if problem:
            raise UserError(
                f"{self.kind} item {key[:12]}: {problem} right after encoding",
                hint="download the model file again if this happens with every clip, or set cache.dtype to float32",
            )
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        data = save(plain, {**metadata, SHA256: content_sha256(plain)})
        with atomic_path(self.path(key)) as temporary:
            temporary.write_bytes(data)  # raises an OSError if the disk is full, unlike save_file

    def read(self, key: str) -> dict[str, Tensor]:
        """Read and validate an item; its tensors are those of `write`.

        A damaged item is removed, so that the next plan asks for it again.

        Raises:
            BrokenItemError: the item is missing, damaged, of wrong shape, holds NaN, or is not what was written.
        """
        from safetensors import SafetensorError, safe_open

        path = self.path(key)
        try:
            with safe_open(path, framework="pt") as file:
                tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                metadata: dict[str, str] = file.metadata() or {}
            problem = _problem(self.kind, tensors)
            if not problem and content_sha256(tensors) != metadata.get(SHA256):
                problem = "damaged: its content is not what was written"
        except FileNotFoundError:
            raise _broken(path, self.kind, "missing") from None
        except OSError as error:  # may be a temporary problem of the disk, so the item is kept
            raise _broken(path, self.kind, f"not readable ({error.strerror or error})") from error
        except SafetensorError as error:
            problem = f"not readable ({error})"
        if problem:
            try:
                self.remove(key)
            except OSError as error:
                raise BrokenItemError.at(
                    path,
                    f"encoded {self.kind} item is {problem}; it cannot be removed: {error.strerror or error}",
                    hint="make its folder writable, or choose another cache.directory; then run the same command again",
                ) from error
            raise _broken(path, self.kind, f"{problem}; it is removed")
        return tensors

    def remove(self, key: str) -> None:
        self.path(key).unlink(missing_ok=True)


def _names(folder: Path) -> list[str]:
    """The names in a folder, none if it is not a folder. (Paths of 100,000 items would cost more than finding them.)"""
    try:
        return os.listdir(folder)  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return []


def content_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 (hex) of contiguous tensors on the CPU: names, dtypes, shapes and bytes."""
    import torch

    hasher = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        hasher.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def _broken(path: Path, kind: EncodedKind, problem: str) -> BrokenItemError:
    return BrokenItemError.at(
        path,
        f"encoded {kind} item is {problem}",
        hint="start the run again: it encodes the item again and continues",
    )


def _problem(kind: EncodedKind, tensors: Mapping[str, Tensor]) -> str:
    """Return the problem with an item, or an empty string."""
    import torch

    axes = REQUIRED[kind] | OPTIONAL[kind]
    if missing := sorted(REQUIRED[kind].keys() - tensors.keys()):
        return f"without {', '.join(missing)}"
    if unknown := sorted(tensors.keys() - axes.keys()):
        return f"with unknown tensors {', '.join(unknown)}"
    for name, tensor in tensors.items():
        if tensor.ndim != axes[name]:
            return f"of wrong shape: {name} is {tuple(tensor.shape)}, expected {axes[name]} axes"
        if not bool(torch.isfinite(tensor).all()):
            return f"damaged: {name} holds NaN or infinity"
    return ""
