"""The header of a .safetensors file: as strict as the library, in bounded time and memory."""

from __future__ import annotations

import json
import resource
import struct
import time
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from hv15.errors import UserError
from hv15.models.weights.header import BITS, MAX_TENSORS, read_header

ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
"""A tensor of one number."""


def file_of(path: Path, header: object, data: bytes = b"") -> Path:
    """A file with any header: its JSON text, or what is written as JSON."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def library_takes(path: Path) -> bool:
    try:
        with safe_open(path, framework="np"):
            return True
    except SafetensorError:
        return False


def we_take(path: Path) -> bool:
    try:
        read_header(path)
    except UserError as error:
        return not (str(path) in error.message and len(error.message) < 400 and error.hint)
    return True


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
    "no number": (b'{"a": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 4]}}', b"1234", "NaN is no number"),
    "a huge number": ({"a": tensor(0, 4, (10**300,))}, b"1234", "whole numbers of 64 bits"),
    "a number without end": (b'{"a": [' + b"9" * 10**6 + b"]}", b"", "whole numbers of 64 bits"),
    "a product beyond 64 bits": ({"a": tensor(0, 0, (2**62, 4, 0))}, b"", "larger than any file"),
    "many axes": ({"a": tensor(0, 4, (1,) * 10**6)}, b"1234", "1,000,000 axes"),
    "deep": (b'{"a": ' + b"[" * 10**6 + b"}", b"", "cannot be read"),
    "deep metadata": (b'{"__metadata__": ' + b'{"a": ' * 10**6 + b"}", b"", "cannot be read"),
    "a million tensors": (b"{" + b'"t": %s,' % json.dumps(ONE).encode() * 10**6, b"", "at most 16,777,216"),
    "too many short tensors": (
        {f"{n:x}": tensor(0, 0, (0,)) for n in range(MAX_TENSORS + 1)},
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
"""What it reads, and hv15 does not."""


@pytest.mark.parametrize("name", REFUSED)
def test_a_forged_header_is_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    header, data, words = REFUSED[name]
    path = file_of(tmp_path / "a.safetensors", header, data)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(UserError, match=r"a\.safetensors") as caught:
        read_header(path)
    assert time.process_time() - start < 5, "seconds"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 700_000, "kilobytes"
    assert words in caught.value.message
    assert len(caught.value.message) < 400
    assert caught.value.hint
    assert library_takes(path) is (name in PASSED_BY_THE_LIBRARY)


WHOLE = save(
    {"w": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2).half(), "none": torch.zeros(0, 3)}, {"format": "pt"}
)

SIZES = st.one_of(st.integers(0, 16), st.sampled_from([-1, 2**32, 2**63, 2**64, 1.0, True, None, "4"]))
TENSORS = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*BITS, "F31"]),
        "shape": st.lists(SIZES, max_size=3),
        "data_offsets": st.lists(SIZES, min_size=2, max_size=3),
    }
)
HEADERS = st.dictionaries(st.sampled_from(["a", "b", "c", "é"]), TENSORS, max_size=3)


@settings(
    max_examples=300, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(header=HEADERS, metadata=st.none() | st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2))
def test_what_we_take_the_library_takes(header: dict[str, object], metadata: object, tmp_path: Path) -> None:
    content = header | ({} if metadata is None else {"__metadata__": metadata})
    path = file_of(tmp_path / "a.safetensors", content, b"x" * 16)
    assert we_take(path) <= library_takes(path), content


@settings(
    max_examples=500, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_whole_file_that_was_changed_somewhere(data: st.DataObject, tmp_path: Path) -> None:
    """Bytes replaced, left out and put in: both take it, or we do not."""
    content = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(content) - 1))
        length = data.draw(st.integers(0, 2))
        content[place : place + length] = data.draw(st.binary(max_size=2))
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    assert we_take(path) <= library_takes(path), bytes(content)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
    shapes=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5).filter("__metadata__".__ne__),
        st.lists(st.integers(0, 3), max_size=4),
        max_size=5,
    ),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.int64, torch.bool]),
)
def test_what_the_library_writes_we_read(
    shapes: dict[str, list[int]], dtype: torch.dtype, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "written.safetensors"
    path.write_bytes(save({name: torch.zeros(shape, dtype=dtype) for name, shape in shapes.items()}))
    assert {name: list(entry.shape) for name, entry in read_header(path).entries.items()} == shapes
