"""A name means one thing in the whole program."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMANDS = ROOT / "hv15/commands/options"
"""The classes there have the names of the commands, such as Check."""


def test_no_two_classes_have_one_name() -> None:
    places = defaultdict(list)
    for package in ("hv15", "tui", "demo_base"):
        for file in sorted((ROOT / package).rglob("*.py")):
            if COMMANDS in file.parents:
                continue
            for name in re.findall(r"^class ([A-Za-z]\w*)", file.read_text(encoding="utf-8"), re.M):
                places[name].append(str(file.relative_to(ROOT)))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}
