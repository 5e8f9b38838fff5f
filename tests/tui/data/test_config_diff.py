"""Differences between two configs: each character that differs shows."""

from __future__ import annotations

import pytest

from tui.data.config_diff import text_diff


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ("a\nb\n", "a\r\nb\n", ["-a", "+a␍", " b"]),
        ("a\r\nb\r\n", "a\r\nc\r\n", [" a", "-b␍", "+c␍"]),
        ("a\n", "a", ["-a", "+a  (no line feed)"]),
        ("a\u2028b\n", "a\nb\n", ["-a\u2028b", "+a", "+b"]),
        ("", "a\n", ["+a"]),
        ("a\n", "a\n", []),
    ],
)
def test_only_a_line_feed_ends_a_line(old: str, new: str, lines: list[str]) -> None:
    assert [line.sign + line.text for line in text_diff(old, new)] == lines
