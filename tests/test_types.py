"""What the type checker must see: the lazily imported names of a package are the real ones, not Any."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mypy import api

REPOSITORY = Path(__file__).parents[1]
WRONG = """
from hv15.lora import LoRANetwork, save_lora
from hv15.models import DiT, DiTConfig, load_dit

def wrong(dit: DiT, network: LoRANetwork) -> None:
    dit.no_such_method(3)
    dit.no_such_attribute
    dit.double_block
    dit.config.num_block
    dit(3)
    DiTConfig(hidden=3)
    load_dit("dit.safetensors", quantize="int3")
    save_lora(3)

def right(dit: DiT) -> int:
    dit.double_blocks[0].train()
    return len(dit.double_blocks) + dit.config.num_blocks + sum(each.numel() for each in dit.parameters())
"""
"""Each line of `wrong` has one error; `right` has none."""


def test_what_the_checker_is_told_to_ignore_has_a_reason() -> None:
    files = [file for package in ("hv15", "tui", "demo_base") for file in (REPOSITORY / package).rglob("*.py")]
    ignored = [line.strip() for file in files for line in file.read_text().splitlines() if "# type: ignore" in line]
    assert ignored
    assert [line for line in ignored if not re.search(r"# type: ignore\[[\w, -]+\]  # \S", line)] == []


@pytest.mark.slow  # .ci/run does it after mypy, whose cache makes it quick
def test_wrong_names_and_arguments_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYPYPATH", str(REPOSITORY))
    cache = REPOSITORY / ".mypy_cache"  # mypy's own: reading torch's types takes a while, once
    file = tmp_path / "wrong.py"
    file.write_text(WRONG)
    options = ["--config-file", str(REPOSITORY / "pyproject.toml"), "--cache-dir", str(cache), "--no-error-summary"]
    output, problems, _ = api.run([*options, str(file)])
    assert problems == ""
    errors = [line for line in output.splitlines() if ": error:" in line]
    first = WRONG.splitlines().index("    dit.no_such_method(3)") + 1
    last = WRONG.splitlines().index("    save_lora(3)") + 1
    assert {int(line.split(":")[1]) for line in errors} == set(range(first, last + 1)), output
