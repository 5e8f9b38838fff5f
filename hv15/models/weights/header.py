"""What a .safetensors file says about itself, read without torch; files that are something else are refused here.

Layout of the format: 8 bytes little-endian header length, the header as JSON, then the tensors' bytes, without holes.

A header is parsed here and not by the safetensors library, which imports numpy or torch, takes 10 s and 1.4 GB for one
of a million tensors, and passes over names that stand twice. What it refuses is refused here, too.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from hv15.errors import UserError
from hv15.records.json_values import Json, JsonObject, RecordError, as_object, as_text

PICKLE_SUFFIXES = frozenset({".pt", ".pth", ".ckpt", ".bin", ".pkl"})
MAX_HEADER = 16 << 20
"""Bytes of a header that is read. That of a full model has half a megabyte; metadata of other tools a few."""
MAX_TENSORS = 100_000
MAX_AXES = 64
"""Of a tensor: torch has no more."""
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
    "C64": 64,
}  # fmt: skip
"""Bits of one element, by dtype as safetensors writes it."""
TORCH_NAMES = {
    "BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64",
}  # fmt: skip
"""The same dtypes as torch calls them, so far as weights use them."""
_LAST = (1 << 64) - 1
_FIELDS = frozenset({"dtype", "shape", "data_offsets"})
_AGAIN = "copy or download the file again"
_GGUF_CURE = (
    "use the .safetensors file of the same model; quantize: nf4 in the config makes it as small when it is loaded"
)
_PICKLE_REASON = "only .safetensors files are read, because a pickle can run code"
_PICKLE_CURE = "convert it where you trust it: safetensors.torch.save_file(torch.load(OLD, weights_only=True), NEW)"


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a file: dtype as safetensors names it ("BF16"), shape, place of its bytes after the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """The checked header of one .safetensors file."""

    path: Path
    raw: bytes
    size: int
    """Size of the whole file in bytes."""
    entries: dict[str, TensorEntry]
    metadata: dict[str, str] = field(default_factory=dict)


def refuse_pickle(path: Path) -> None:
    """Raise UserError for the suffixes of pickle checkpoints: loading one can run any code."""
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise UserError.at(path, f"a pickle checkpoint ({path.suffix}); {_PICKLE_REASON}", hint=_PICKLE_CURE)


def unreadable(path: Path, error: OSError) -> UserError:
    """The error for a file that the system does not give."""
    return UserError.at(path, f"cannot be read: {error.strerror}", hint="check its permissions and the disk")


def read_header(path: Path) -> Header:
    """Read and check the header of a .safetensors file.

    Raises:
        UserError: missing, empty, a pickle, not safetensors, truncated, longer than its header says, or with a header
            that is damaged or beyond the limits.
    """
    path = Path(path)
    refuse_pickle(path)
    try:
        found = path.stat()
        size = found.st_size
        if not (S_ISREG(found.st_mode) or S_ISDIR(found.st_mode)):  # a pipe would be waited for
            raise UserError.at(path, "not a regular file; expected a .safetensors file", hint="check the path")
        with path.open("rb") as file:
            start = file.read(64)
            length = int.from_bytes(start[:8], "little")
            _check_start(path, start, length, size)
            file.seek(8)
            raw = file.read(length)
    except FileNotFoundError:
        raise UserError.at(path, "no such file", hint="check the path") from None
    except IsADirectoryError:
        raise UserError.at(path, "is a folder; expected a .safetensors file", hint="name a file in it") from None
    except OSError as error:
        raise unreadable(path, error) from error
    return _parse(path, raw, size)


def _check_start(path: Path, start: bytes, length: int, size: int) -> None:
    if size == 0:
        raise UserError.at(path, "the file is empty", hint=_AGAIN)
    if start[8:9] != b"{":
        if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
            raise UserError.at(path, f"a pickle checkpoint under another name; {_PICKLE_REASON}", hint=_PICKLE_CURE)
        if start.startswith(b"GGUF"):
            raise UserError.at(path, "a GGUF file, which is not read", hint=_GGUF_CURE)
        if start.startswith(b"version https://git-lfs"):
            raise UserError.at(path, "a Git LFS pointer, not the weights", hint="run `git lfs pull` in that folder")
        raise UserError.at(path, "not a safetensors file (no header at its start)", hint=_AGAIN)
    if length + 8 > size:
        raise UserError.at(
            path, f"truncated: {size:,} bytes, but the header alone should end at byte {length + 8:,}", hint=_AGAIN
        )
    if length > MAX_HEADER:
        raise UserError.at(
            path,
            f"its header has {length:,} bytes; at most {MAX_HEADER:,} are read",
            hint="no model or LoRA needs so many; use another file",
        )


def _parse(path: Path, raw: bytes, size: int) -> Header:
    try:
        content = _load(raw)
        metadata = {key: as_text(value) for key, value in as_object(content.pop("__metadata__", {})).items()}
        if len(content) > MAX_TENSORS:
            raise RecordError(f"{len(content):,} tensors, at most {MAX_TENSORS:,} are read")
        entries = {key: _entry(key, value) for key, value in content.items()}
        # JSON can write half a character, which no encoding has.
        "\n".join((*metadata.keys(), *metadata.values(), *entries)).encode()
    except (ValueError, RecursionError) as error:
        raise UserError.at(path, f"not a safetensors file (its header cannot be read: {error})", hint=_AGAIN) from error
    _check_sizes(path, entries)
    expected = 8 + len(raw) + max((entry.end for entry in entries.values()), default=0)
    if size != expected:
        state = "truncated" if size < expected else "longer than it should be"
        raise UserError.at(path, f"{state}: {size:,} bytes, but its header describes {expected:,}", hint=_AGAIN)
    return Header(path, raw, size, entries, metadata)


def _load(raw: bytes) -> JsonObject:
    """The JSON of a header, by rules that Python's reader does not have: UTF-8, no name twice, no NaN."""
    value: Json = json.loads(
        raw.decode("utf-8"), object_pairs_hook=_without_twins, parse_int=_size, parse_constant=_refuse_constant
    )
    return as_object(value)


def _without_twins(pairs: list[tuple[str, Json]]) -> JsonObject:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise RecordError(f"{Counter(key for key, _ in pairs).most_common(1)[0][0]!r:.60} stands twice in it")
    return found


def _size(digits: str) -> int:
    if digits.startswith("-") or len(digits) > len(str(_LAST)) or int(digits) > _LAST:
        raise RecordError(f"expected whole numbers of 64 bits, 0 or more, found {digits:.60}")
    return int(digits)


def _refuse_constant(name: str) -> Json:
    raise RecordError(f"{name} is not a number")


def _entry(key: str, value: Json) -> TensorEntry:
    content = as_object(value)
    if content.keys() != _FIELDS:
        raise RecordError(f"{key!r:.60} has {', '.join(sorted(content))!s:.80}; expected {', '.join(sorted(_FIELDS))}")
    shape, offsets = _integers(content["shape"]), _integers(content["data_offsets"])
    if len(shape) > MAX_AXES:
        raise RecordError(f"{key!r:.60} has {len(shape):,} axes, at most {MAX_AXES} are read")
    if len(offsets) != 2:
        raise RecordError(f"{key!r:.60} has {len(offsets):,} offsets, expected 2")
    if prod(filter(None, shape)) > _LAST:
        raise RecordError(f"{key!r:.60} is larger than any file: {shape!r:.60}")
    return TensorEntry(as_text(content["dtype"]), tuple(shape), *offsets)


def _integers(value: Json) -> list[int]:
    entries = value if isinstance(value, list) else [None]
    whole = [entry for entry in entries if isinstance(entry, int) and not isinstance(entry, bool)]
    if len(whole) != len(entries):
        raise RecordError(f"expected a list of whole numbers, found {value!r:.60}")
    return whole


def _check_sizes(path: Path, entries: Mapping[str, TensorEntry]) -> None:
    """Each tensor fills its bytes, and they follow on one another."""
    place = 0
    for key, entry in sorted(entries.items(), key=lambda pair: (pair[1].start, pair[1].end)):
        bits = BITS.get(entry.dtype)
        if bits is None or prod(entry.shape) * bits != (entry.end - entry.start) * 8:
            found = f"{entry.dtype} {list(entry.shape)} in {entry.end - entry.start:,} bytes"
            raise UserError.at(path, f"damaged header: {key} is {found}", hint=_AGAIN)
        if entry.start != place:
            where = "overlaps another tensor" if entry.start < place else "lies behind a hole"
            raise UserError.at(
                path,
                f"damaged header: {key} {where}: it begins at byte {entry.start:,}, expected {place:,}",
                hint=_AGAIN,
            )
        place = entry.end
