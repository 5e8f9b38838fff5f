"""Reads model weights from one .safetensors file or a folder of shards, tensor by tensor, with strict checks.

- Opening reads only the header. A tensor, or some of its rows, is read into its own memory when it is asked for, so a
  process holds only what it uses.
- `load_into` fills a module built on the meta device without a second copy of the weights.
- Every user mistake is a UserError that names the file, what was found and the first few keys.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hv15.errors import UserError
from hv15.models.weights.header import TORCH_NAMES, Header, TensorEntry, read_header, refuse_pickle, unreadable
from hv15.records.json_values import JsonObject, as_object, as_text, parse_json, parse_object

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from hv15.models.weights.quantised import ScaledCodes

_INDEX_NAMES = ("diffusion_pytorch_model.safetensors.index.json", "model.safetensors.index.json")
_FILE_NAMES = ("diffusion_pytorch_model.safetensors", "model.safetensors")
MOST_SHARDS = 1000
"""Of one model."""
_LARGE = 2**20  # elements
_FINITE_SAMPLE = 1_000_000  # elements of one tensor that are checked for NaN


class Checkpoint:
    """The tensors of one file or of a folder's shards, by name; made by `open_checkpoint`.

    Raises:
        UserError: two shards hold the same tensor.
    """

    def __init__(self, path: Path, headers: list[Header]) -> None:
        self.path = path
        self.files = [header.path for header in headers]
        self.metadata: dict[str, str] = {}
        self._entries: dict[str, tuple[TensorEntry, Header]] = {}
        for header in headers:
            self.metadata.update(header.metadata)
            for key, entry in header.entries.items():
                if key in self._entries:
                    raise UserError.at(
                        path,
                        f"{key} is in both {self._entries[key][1].path.name} and {header.path.name}",
                        hint="keep the shards of only one checkpoint in this folder",
                    )
                self._entries[key] = (entry, header)

    def keys(self) -> list[str]:
        """Return the names of all tensors, in the order of the header."""
        return list(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def shape(self, key: str, dimensions: int | None = None) -> tuple[int, ...]:
        """Return the shape of a tensor, from the header.

        Args:
            dimensions: the expected number of dimensions, for a tensor from whose shape sizes are read; None: any.

        Raises:
            UserError: the tensor has another number of dimensions, or is empty although `dimensions` is set.
        """
        shape = self._entries[key][0].shape
        if dimensions is not None and (len(shape) != dimensions or 0 in shape):
            raise UserError.at(
                self.path,
                f"{key} has the shape {list(shape)}, expected {dimensions} dimensions above 0",
                hint="copy or download the file again: it was changed or is of another model",
            )
        return shape

    def dtype_name(self, key: str) -> str:
        """Return the dtype of a tensor as safetensors writes it ("BF16", "F16", "F8_E4M3", ...); needs no torch."""
        return self._entries[key][0].dtype

    def dtype(self, key: str) -> torch.dtype:
        """Return the dtype of a tensor, from the header.

        Raises:
            UserError: torch does not support the number format.
        """
        import torch

        name = self.dtype_name(key)
        if name not in TORCH_NAMES:
            raise UserError.at(
                self.path,
                f"{key} is in the number format {name}, which is not supported",
                hint="use the bf16 file of the same model",
            )
        dtype: torch.dtype = getattr(torch, TORCH_NAMES[name])
        return dtype

    def tensor(self, key: str, rows: range | None = None, device: torch.device | str = "cpu") -> Tensor:
        """Read one tensor of the header's shape [rows, ...], or only some of its rows.

        Args:
            rows: the rows to read; None reads all.
            device: CPU, or meta for a tensor without data, made from the header alone.

        Raises:
            UserError: torch does not support the number format, or the file cannot be read or has changed.
        """
        import torch

        entry, header = self._entries[key]
        shape, dtype, start = list(entry.shape), self.dtype(key), 8 + len(header.raw) + entry.start
        if rows is not None:
            start += rows.start * prod(shape[1:]) * dtype.itemsize
            shape[0] = len(rows)
        if torch.device(device).type == "meta":
            return torch.empty(shape, dtype=dtype, device="meta")
        data = torch.empty(prod(shape) * dtype.itemsize, dtype=torch.uint8)
        _read(header.path, start, data.numpy().data)
        return data.view(dtype).reshape(shape)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield all (name, tensor) pairs, reading one tensor at a time."""
        for key in self._entries:
            yield key, self.tensor(key)

    @cached_property
    def config(self) -> JsonObject:
        """The config.json in the folder or beside the file; {} if there is none.

        Raises:
            UserError: it exists but cannot be read.
        """
        path = (self.path if self.path.is_dir() else self.path.parent) / "config.json"
        try:
            content = parse_json(path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise UserError.at(path, f"not readable as JSON: {error}", hint="copy or download it again") from error
        return content if isinstance(content, dict) else {}


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a .safetensors file, or a folder that holds one or its shards and *.index.json; reads only headers.

    Raises:
        UserError: the file or a shard is missing, empty, truncated, a pickle or not safetensors, or a folder has
            several candidates.
    """
    path = Path(path)
    if not path.is_dir():
        return Checkpoint(path, [read_header(path)])
    index = _one_of(path, _INDEX_NAMES, "*.safetensors.index.json")
    if index is not None:
        return _open_shards(path, index)
    file = _one_of(path, _FILE_NAMES, "*.safetensors")
    if file is not None:
        return Checkpoint(path, [read_header(file)])
    for other in sorted(path.iterdir()):
        refuse_pickle(other)
    inner = sorted(child.parent.name for child in path.glob("*/*.safetensors"))
    hint = f"use one of its subfolders: {', '.join(dict.fromkeys(inner))}" if inner else "check the path"
    raise UserError.at(path, "a folder without .safetensors files", hint=hint)


def _read(path: Path, start: int, into: memoryview) -> None:
    """Fill a buffer with the bytes of a file, beginning at `start`."""
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            while into:
                count = file.readinto(into)
                if not count:
                    raise UserError.at(path, "shrank while it was being read", hint="copy or download it again")
                into = into[count:]
    except OSError as error:
        raise unreadable(path, error) from error


def _one_of(folder: Path, names: tuple[str, ...], pattern: str) -> Path | None:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    found = sorted(folder.glob(pattern))
    if len(found) > 1:
        listed = ", ".join(file.name for file in found[:5])
        raise UserError.at(
            folder,
            f"found {len(found)} candidates: {listed}; expected one",
            hint="give the path of the file to use",
        )
    return found[0] if found else None


def _open_shards(folder: Path, index: Path) -> Checkpoint:
    try:
        weight_map = as_object(parse_object(index.read_bytes())["weight_map"])
        names = sorted({as_text(name) for name in weight_map.values()})
    except OSError as error:
        raise unreadable(index, error) from error
    except (ValueError, KeyError) as error:
        reason = "it has no weight_map" if isinstance(error, KeyError) else str(error)
        raise UserError.at(index, f"not a shard index: {reason}", hint="copy or download it again") from error
    if outside := [name for name in names if Path(name).is_absolute() or ".." in Path(name).parts]:
        raise UserError.at(index, f"names a file of another folder: {outside[0]}", hint="copy or download it again")
    if len(names) > MOST_SHARDS:
        found = f"names {len(names):,} shards; at most {MOST_SHARDS:,} are read"
        raise UserError.at(index, found, hint="no model has so many; copy or download it again")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise UserError.at(
            folder,
            f"{len(missing)} of {len(names)} shards missing: {', '.join(missing[:5])}",
            hint="download the missing files into this folder",
        )
    checkpoint = Checkpoint(folder, [read_header(folder / name) for name in names])
    absent = [key for key in weight_map if key not in checkpoint]
    if absent:
        raise UserError.at(
            folder,
            f"{len(absent)} tensors of {index.name} are in no shard, first {absent[0]}",
            hint="download the folder again: the index and the shards are from different downloads",
        )
    return checkpoint


def check_keys(expected: Iterable[str], found: Iterable[str], where: Path | str, *, what: str = "model") -> None:
    """Check that a checkpoint has the expected tensors.

    Args:
        where: the file, for the message.
        what: the model in words, for the message.

    Raises:
        UserError: tensors are missing or unexpected; the message counts them and names the first.
    """
    wanted, present = dict.fromkeys(expected), dict.fromkeys(found)
    missing = [key for key in wanted if key not in present]
    unexpected = [key for key in present if key not in wanted]
    if not missing and not unexpected:
        return
    parts = [
        f"{len(keys)} of {total} {kind}, first {', '.join(keys[:3])}"
        for keys, total, kind in (
            (missing, f"{len(wanted)} tensors", "missing"),
            (unexpected, f"{len(present)} tensors", "unexpected"),
        )
        if keys
    ]
    raise UserError.at(
        where,
        f"does not fit the {what}: {'; '.join(parts)}",
        hint="check that the path names the right model, and that the download is complete",
    )


def load_into(
    module: nn.Module,
    tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor | ScaledCodes]],
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    kept_on_host: Callable[[str], bool] = lambda key: False,
    where: Path | str = "checkpoint",
) -> None:
    """Fill a module built on the meta device, tensor by tensor; every name and shape must match.

    Afterwards the module is frozen and in eval mode.

    Args:
        module: built under `torch.device("meta")`; every parameter and persistent buffer is replaced. Weights of
            quantised layers are expected unquantised, under the same names, and are quantised on `device`.
        tensors: (name in the module, tensor) pairs; read one at a time, so there are never two copies of the model.
            Codes with scales are for `Fp8Linear` only.
        dtype: floating tensors are cast to it; None keeps the dtype of the file.
        kept_on_host: whether the tensor of this name stays on the CPU regardless of `device`.
        where: the file, for messages.

    Raises:
        UserError: names are missing or unexpected, shapes differ, or there is NaN or infinity.
    """
    from hv15.models.weights.quantised import plain_shapes

    shapes = plain_shapes(module)
    found: list[str] = []
    wrong: list[str] = []
    for key, tensor in tensors.items() if isinstance(tensors, Mapping) else tensors:
        found.append(key)
        if key not in shapes:
            continue
        if tensor.shape != shapes[key]:
            wrong.append(f"{key} is {list(tensor.shape)} instead of {list(shapes[key])}")
            continue
        _fill(module, key, tensor, dtype, device, "cpu" if kept_on_host(key) else device, where)
        size = tensor.shape.numel()
        del tensor
        if size >= _LARGE:
            _give_back()
    check_keys(shapes, found, where)
    refuse_shapes(wrong, where)
    module.requires_grad_(False).eval()


def _fill(
    module: nn.Module,
    key: str,
    tensor: Tensor | ScaledCodes,
    dtype: torch.dtype | None,
    device: torch.device | str,
    place: torch.device | str,
    where: Path | str,
) -> None:
    """Put one tensor into the module on the device `place`; weights are quantised on `device`."""
    from torch import nn

    from hv15.models.weights.quantised import Fp8Linear, QuantisedLinear, ScaledCodes

    owner_name, _, name = key.rpartition(".")
    owner = module.get_submodule(owner_name)
    if isinstance(tensor, ScaledCodes):
        check_finite(tensor.codes, key, where)
        check_finite(tensor.scale, f"the scale of {key}", where)
        cast(Fp8Linear, owner).take(tensor, place)
    elif isinstance(owner, QuantisedLinear) and name == "weight":
        value = tensor.to(device)
        check_finite(value, key, where)
        owner.quantise_(value, place)
    else:
        value = tensor.to(place, dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype)
        check_finite(value, key, where)
        if name in owner._parameters:
            owner._parameters[name] = nn.Parameter(value, requires_grad=False)
        else:
            owner._buffers[name] = value


def _give_back() -> None:
    """Return freed memory pages to the system.

    glibc keeps them, but cannot reuse them for torch's aligned tensors of the same size, because an aligned allocation
    requests a few bytes more. Without this, loading into fp8 would end with up to a fifth more memory than the model.
    """
    with suppress(OSError, AttributeError):  # other C libraries
        ctypes.CDLL(None).malloc_trim(0)


def refuse_shapes(wrong: Sequence[str], where: Path | str) -> None:
    """Raise UserError if there are tensors of another shape.

    Args:
        wrong: a text for each, "NAME is SHAPE instead of SHAPE".
        where: the file, for the message.
    """
    if wrong:
        raise UserError.at(
            where,
            f"{len(wrong)} tensors of another shape: {'; '.join(wrong[:3])}",
            hint="use a file of this model: these tensors are from a model of another size",
        )


def check_finite(tensor: Tensor, key: str, where: Path | str) -> None:
    """Check all elements of a small tensor, of any shape, or a million evenly spaced elements of a large one.

    Raises:
        UserError: an element is NaN or infinite; the message names the tensor `key` of the file `where`.
    """
    import torch

    if tensor.device.type == "meta" or not tensor.is_floating_point():
        return
    flat = tensor.reshape(-1)
    # An odd step reaches all columns, as row lengths are usually even.
    sample = flat if flat.numel() <= _FINITE_SAMPLE else flat[:: (flat.numel() // _FINITE_SAMPLE + 1) | 1]
    if sample.dtype.itemsize == 1:
        sample = sample.float()
    if not torch.isfinite(sample).all():
        raise UserError.at(
            where,
            f"{key} holds NaN or infinity",
            hint="use another checkpoint: this file is damaged, or was saved by a run that diverged",
        )
