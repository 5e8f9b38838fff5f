"""Texts that a terminal would obey."""

from __future__ import annotations

import re

HOSTILE = {
    "clipboard": "a\x1b]52;c;ZXZpbA==\x07b",
    "title": "a\x1b]0;title\x1b\\b",
    "wiped screen": "a\x1b[2J\x1b[1;1Hb",
    "another order of letters": "a\u202egnp.exe\u2066b\u200f\u061c",
    "eight-bit escapes": "a\x9b2J\x9d0;title\x9cb",
    "overwritten": "secret\rerror: nothing\x08\x08b\x7f",
    "forged line": "a\nerror: forged\n  hint: forged\u2028error: forged\u2029\x85b",
}
OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
