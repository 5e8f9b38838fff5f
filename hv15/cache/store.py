"""The content-addressed store of encoded items: `<root>/store/<kind>/<settings digest>/<key>.safetensors`.

Items are not declared to Snakemake, so none of its flags can delete them. An item is complete or absent, and is checked
each time it is read: a damaged item is reported, and encoded again by the next encoding job.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.atomic import atomic_path
from hv15.errors import UserError
from hv15.records.paths import EncodedKind

if TYPE_CHECKING:
    from torch import Tensor

# The tensors of an item of each kind, with their numbers of axes; `vision` is there for i2v only.
REQUIRED: dict[EncodedKind, dict[str, int]] = {"latents": {"latents": 4}, "text": {"text": 2, "glyphs": 2}}
OPTIONAL: dict[EncodedKind, dict[str, int]] = {"latents": {"vision": 2}, "text": {}}


class BrokenItemError(UserError):
    """A store item that cannot be used: missing, damaged, of wrong shape, or with NaN."""


class Store:
    """The items of one kind that were encoded with one set of settings."""

    def __init__(self, root: Path, kind: EncodedKind, settings_digest: str) -> None:
        self.kind: EncodedKind = kind
        self.folder = Path(root) / "store" / kind / settings_digest

    def path(self, key: str) -> Path:
        """Return the file of an item, in a folder named after two hex digits of the key, so that folders stay small."""
        return self.folder / key[:2] / f"{key}.safetensors"

    def has(self, key: str) -> bool:
        """Whether an item's file exists; its content is checked when it is read."""
        return self.path(key).is_file()

    def all_keys(self) -> Iterator[str]:
        """Yield all keys in the store, in no particular order."""
        return (path.stem for path in self.folder.glob("??/*.safetensors") if not path.name.startswith("."))

    def write(self, key: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Write an item atomically: latents [C, F, h, w] and perhaps vision [729, 1152], or text and glyphs [L, D].

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
        data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, dict(metadata))
        with atomic_path(self.path(key)) as temporary:
            temporary.write_bytes(data)  # raises an OSError if the disk is full, unlike save_file

    def read(self, key: str) -> dict[str, Tensor]:
        """Read and validate an item: latents [C, F, h, w] and perhaps vision [729, 1152], or text and glyphs [L, D].

        A damaged item is removed, so that the next plan asks for it again.

        Raises:
            BrokenItemError: the item is missing, damaged, of wrong shape, or holds NaN.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.path(key)
        try:
            tensors = load_file(path)
            problem = _problem(self.kind, tensors)
        except FileNotFoundError:
            raise _broken(path, self.kind, "missing") from None
        except OSError as error:  # may be a temporary problem of the disk, so the item is kept
            raise _broken(path, self.kind, f"not readable ({error.strerror or error})") from error
        except SafetensorError as error:
            problem = f"not readable ({error})"
        if problem:
            self.remove(key)
            raise _broken(path, self.kind, f"{problem}; it is removed")
        return tensors

    def is_sound(self, key: str) -> bool:
        """Whether the item can be read and used."""
        try:
            self.read(key)
        except BrokenItemError:
            return False
        return True

    def remove(self, key: str) -> None:
        self.path(key).unlink(missing_ok=True)


def _broken(path: Path, kind: EncodedKind, problem: str) -> BrokenItemError:
    return BrokenItemError(
        f"{path}: encoded {kind} item is {problem}",
        hint="run the same snakemake command again: it encodes the item again and continues",
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
