"""What a caption file's bytes are read as."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hv15.data.captions import MOST_CAPTION, caption_key, decode_text, plain, read_caption


def test_line_ends_are_no_part_of_a_caption(tmp_path: Path) -> None:
    keys = set()
    for number, ends in enumerate((b"\n", b"\r\n", b"\r")):
        path = tmp_path / f"{number}.txt"
        path.write_bytes(b"a red shape" + ends + b"it moves" + ends)
        assert read_caption(str(path)) == "a red shape\nit moves"
        keys.add(caption_key(read_caption(str(path))))
    assert len(keys) == 1
    assert plain(" a\r\n\r\nb\rc \n") == "a\n\nb\nc"


@pytest.mark.parametrize("data", [b"", b"  \r\n\t ", "\ufeff \u3000\n".encode()])
def test_nothing_is_an_empty_caption(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(data)
    assert read_caption(str(tmp_path / "a.txt")) == ""


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"a red\0circle", "UTF-16LE: NUL at offset 5"),
        ("a red circle".encode("utf-16-le"), "UTF-16LE: NUL at offset 1"),
        ("ein roter Bär".encode("utf-16-le"), "UTF-16LE"),
        ("a red circle".encode("utf-16-be"), "UTF-16BE: NUL at offset 0"),
        ("a red circle".encode("utf-16"), "UTF-16"),
        ("a red circle".encode("utf-32"), "UTF-32"),
        ("a red circle".encode("utf-32-le"), "UTF-32: NUL at offset 1"),
        ("a red circle".encode("utf-32-be"), "UTF-32: NUL at offset 0"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0", "binary data: NUL at offset 8"),
    ],
)
def test_other_encodings_are_named(data: bytes, found: str) -> None:
    with pytest.raises(ValueError, match=rf"^not UTF-8 but {found}"):
        decode_text(data)


def test_bytes_that_are_no_utf8() -> None:
    with pytest.raises(ValueError, match="not UTF-8: byte 0xe9 at offset 3"):
        decode_text(b"caf\xe9")
    with pytest.raises(ValueError, match="at offset 6"):
        decode_text(b"\xef\xbb\xbfcaf\xe9")
    assert decode_text("\ufeffcafé".encode()) == "café"


def test_what_is_far_too_long_is_no_caption(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"word " * (MOST_CAPTION // 5 - 1))
    assert len(read_caption(str(tmp_path / "a.txt"))) > MOST_CAPTION - 10
    (tmp_path / "a.txt").write_bytes(b"word " * (MOST_CAPTION // 5 + 2))
    with pytest.raises(ValueError, match="more than 64 KiB, expected a caption"):
        read_caption(str(tmp_path / "a.txt"))


@given(data=st.binary(max_size=200) | st.text().map(str.encode))
@settings(max_examples=80, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_caption_or_a_sentence(data: bytes, tmp_path: Path) -> None:
    """A caption is text that an encoder takes: UTF-8, without NUL, without white space around it."""
    file = tmp_path / "a.txt"
    file.write_bytes(data)
    try:
        caption = read_caption(str(file))
    except ValueError as error:
        assert str(error)  # noqa: PT017
        return
    assert caption == caption.strip()
    assert "\0" not in caption
    assert "\r" not in caption
    assert data.decode().removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").strip() == caption
