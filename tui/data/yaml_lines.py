"""Line ends of a text that went through an editor that knows only one kind of them."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher


def with_line_ends(before: str, lines: Sequence[str], newline: str) -> str:
    """Join the lines of an editor: a line that was there before keeps its end, others get `newline`.

    Args:
        before: the text that the editor was given. It splits as `str.splitlines` does, with one more empty
            line after a line feed or a carriage return at the end.
        lines: what it has now.
    """
    old = before.splitlines()
    ends = [whole[len(line) :] for whole, line in zip(before.splitlines(keepends=True), old, strict=True)]
    if not before or before.endswith(("\n", "\r")):
        old.append("")
        ends.append("")
    kept = [newline] * len(lines)
    for _, start, end, new_start, new_end in SequenceMatcher(None, old, lines, autojunk=False).get_opcodes():
        if end - start == new_end - new_start:
            kept[new_start:new_end] = [each or newline for each in ends[start:end]]
    kept[-1] = ends[-1] if lines[-1] == old[-1] else ""
    return "".join(line + end for line, end in zip(lines, kept, strict=True))
