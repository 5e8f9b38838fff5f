"""docs/hardware.md names files that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "hardware.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and line.count("|") == 5
]


def test_each_item_names_its_code_its_tests_and_what_will_show_it() -> None:
    header, *items = ROWS
    assert header == ["item", "code", "checked instead by", "the self-test will show"]
    assert len(items) > 15
    for item, code, checked, shown in items:
        files = re.findall(r"`((?:hv15|tui|tests)/[\w/]+(?:\.py)?)`", f"{code} {checked}")
        assert [name for name in files if not (ROOT / name).exists()] == [], item
        assert any(name.startswith("tests/") for name in files), item
        assert shown.partition(":")[0] in ("machine", "numbers", "full size", "loop", "nothing"), item
