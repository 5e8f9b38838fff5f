"""What disks, editors and strangers make of a file: cuts, flips, and values of another kind."""

from __future__ import annotations

import re

from hypothesis import strategies as st

FRAGMENTS = (
    b"", b"\0" * 9, b"\xff", b"\xed\xa0\x80", b"NaN", b"1e999", b"-1", b"9" * 5000, b"[" * 5000, b'"\\ud800"', b"null",
    b"{}", b"[]", b"\n", b"\r\n", b"true", b"0.5", b'"x"', b'"\x1b[2J"', b"," * 9, b"1795953420", b"9007199254740993",
)  # fmt: skip
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9.eE+]+|true|false|null|[\[\]{},:\n]')


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """A file of which a few tokens, bytes or ends are another's."""
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["token", "token", "token", "cut", "flip", "insert"]))
        if not content:
            return content
        if kind == "token" and (found := list(_TOKENS.finditer(content))):
            token = found[draw(st.integers(0, len(found) - 1))]
            content = content[: token.start()] + draw(st.sampled_from(FRAGMENTS)) + content[token.end() :]
            continue
        place = draw(st.integers(0, len(content) - 1))
        if kind == "cut":
            content = content[:place]
        elif kind == "flip":
            content = content[:place] + bytes([content[place] ^ 1 << draw(st.integers(0, 7))]) + content[place + 1 :]
        else:
            content = content[:place] + draw(st.sampled_from(FRAGMENTS)) + content[place:]
    return content
