"""The header of a .safetensors file: as strict as the library, in bounded time and memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from hv15.errors import UserError
from hv15.models.weights.header import BITS, read_header
from tests.hostile.headers import PASSED_BY_THE_LIBRARY, REFUSED, file_of


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


LARGE = ("a million tensors", "too many short tensors", "many lists", "many axes")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in REFUSED]
)
def test_what_the_library_says_of_a_forged_header(name: str, tmp_path: Path) -> None:
    """What hv15 says of it: tests/hostile."""
    header, data, _ = REFUSED[name]
    path = file_of(tmp_path / "a.safetensors", header, data)
    assert library_takes(path) is (name in PASSED_BY_THE_LIBRARY)
    assert not we_take(path)


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a folder; expected a \.safetensors file"):
        read_header(tmp_path)


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


@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=HEADERS, metadata=st.none() | st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2))
def test_what_we_take_the_library_takes(header: dict[str, object], metadata: object, tmp_path: Path) -> None:
    content = header | ({} if metadata is None else {"__metadata__": metadata})
    path = file_of(tmp_path / "a.safetensors", content, b"x" * 16)
    assert we_take(path) <= library_takes(path), content


@settings(
    max_examples=150, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
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


@settings(max_examples=50, derandomize=True, deadline=None)
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
