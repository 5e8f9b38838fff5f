"""Headers of .safetensors files, and what must be said about them."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from hv15.models.weights.header import MAX_TENSORS
from tests.hostile.entry import Hostile

ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
"""A tensor of one number."""


def file_of(path: Path, header: object, data: bytes = b"") -> Path:
    """A file with any header: its JSON text, what is written as JSON, or what makes that, if it is large."""
    header = header() if callable(header) else header
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def tensor(start: int, end: int, shape: tuple[object, ...] = (1,), dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


TWINS = b'{"a": %(one)s, "a": %(one)s}' % {b"one": json.dumps(ONE).encode()}

REFUSED: dict[str, tuple[object, bytes, str]] = {
    "negative offset": ({"a": tensor(-4, 0)}, b"", "0 or more, found -4"),
    "minus nothing": (b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [-0, 4]}}', b"1234", "found -0"),
    "offsets that go back": ({"a": tensor(4, 0)}, b"1234", "damaged header: a is"),
    "overlap": ({"a": tensor(0, 4), "b": tensor(0, 4)}, b"1234", "b overlaps another tensor"),
    "a hole": ({"a": tensor(0, 4), "b": tensor(8, 12)}, b"x" * 12, "b lies behind a hole"),
    "a hole at the start": ({"a": tensor(4, 8)}, b"x" * 8, "a lies behind a hole"),
    "three offsets": ({"a": {**ONE, "data_offsets": [0, 4, 4]}}, b"1234", "3 offsets, expected 2"),
    "the same name twice": (TWINS, b"1234", "'a' stands twice"),
    "the same metadata twice": (b'{"__metadata__": {"k": "v", "k": "w"}}', b"", "'k' stands twice"),
    "a fraction of a row": ({"a": tensor(0, 4, (1.0,))}, b"1234", "expected a list of whole numbers"),
    "a negative shape": ({"a": tensor(0, 4, (-1,))}, b"1234", "found -1"),
    "true for a number": ({"a": tensor(0, 1, (True,), "I8")}, b"1", "expected a list of whole numbers"),
    "no number": (b'{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 4]}}', b"1234", "NaN is not a number"),
    "a huge number": ({"a": tensor(0, 4, (10**300,))}, b"1234", "whole numbers of 64 bits"),
    "a number without end": (b'{"a": [' + b"9" * 10**6 + b"]}", b"", "whole numbers of 64 bits"),
    "a product beyond 64 bits": ({"a": tensor(0, 0, (2**62, 4, 0))}, b"", "larger than any file"),
    "many axes": ({"a": tensor(0, 4, (1,) * 10**6)}, b"1234", "1,000,000 axes"),
    "deep": (b'{"a": ' + b"[" * 10**6 + b"}", b"", "cannot be read"),
    "deep metadata": (b'{"__metadata__": ' + b'{"a": ' * 10**6 + b"}", b"", "cannot be read"),
    "a million tensors": (b"{" + b'"t": %s,' % json.dumps(ONE).encode() * 10**6, b"", "at most 16,777,216"),
    "too many short tensors": (
        lambda: {f"{n:x}": tensor(0, 0, (0,)) for n in range(MAX_TENSORS + 1)},
        b"",
        "100,001 tensors, at most 100,000 are read",
    ),
    "many lists": (b'{"a": [' + b"[]," * 10**6 + b"1]}", b"", "expected an object"),
    "half a character": (b'{"__metadata__": {"a": "\\ud800"}}', b"", "surrogates not allowed"),
    "a name of half a character": (
        b'{"\\udfff": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
        b"1234",
        "surrogates not allowed",
    ),
    "no UTF-8": (b'{"\xff": 1}', b"", "utf-8"),
    "UTF-16": ('{"a": 1}'.encode("utf-16-le"), b"", "cannot be read"),
    "a number as metadata": ({"__metadata__": {"a": 1}}, b"", "expected text, found 1"),
    "no metadata": ({"__metadata__": None}, b"", "expected an object"),
    "an unknown dtype": ({"a": tensor(0, 4, dtype="F31")}, b"1234", "a is F31"),
    "an unknown entry": ({"a": {**ONE, "more": 1}}, b"1234", "expected data_offsets, dtype, shape"),
    "a list for a tensor": ({"a": ["F32", [1], [0, 4]]}, b"1234", "expected an object"),
    "half a byte": ({"a": tensor(0, 1, (1,), "F4")}, b"1", "a is F4"),
    "words behind": (b"{} x", b"", "cannot be read"),
}  # fmt: skip
PASSED_BY_THE_LIBRARY = {
    "the same name twice", "the same metadata twice", "many axes", "too many short tensors",
    "no metadata", "an unknown entry", "a list for a tensor",
}  # fmt: skip
"""What it reads, and hv15 refuses."""


def _header(header: object, data: bytes, said: str) -> Hostile:
    return Hostile(
        lambda folder: file_of(folder / "a.safetensors", header, data),
        ("show", "a.safetensors"),
        ("error: a.safetensors: ", said),
    )


INPUTS = {f"header: {name}": _header(*each) for name, each in REFUSED.items()}
