"""docs/using-the-lora.md names files, commands and lines of code that are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
from torch.testing import assert_close

from hv15.choices import LoRAProgram, PublishedLayout
from hv15.cli import parse
from hv15.lora import apply_lora, convert_file, save_lora
from hv15.models import DiT
from tests.lora.diffusers_model import ours, theirs
from tests.lora.samples import linears, random_lora

REPOSITORY = Path(__file__).parents[2]
TEXT = (REPOSITORY / "docs/using-the-lora.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """The commands of hv15 that the page gives."""
    found = [line for block in re.findall(r"```\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]
    found += re.findall(r"`(hv15 [^`]+)`", TEXT)
    return [line.partition("#")[0].strip() for line in found if re.match(r"hv15 (lora )?\w+ \S*[./]", line)]


def test_its_commands_exist() -> None:
    assert len(commands()) > 3
    for line in commands():
        parse(shlex.split(line)[1:])


def test_its_files_are_those_of_the_workflow() -> None:
    for layout in get_args(PublishedLayout):
        assert f"`results/lora.{layout}.safetensors`" in TEXT


def test_all_programs_are_there() -> None:
    for program in get_args(LoRAProgram):
        assert program in TEXT.lower()


@pytest.mark.numeric
def test_its_lines_for_diffusers_give_our_own_result(
    small_dit: DiT, peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    lora = random_lora(linears(small_dit), rank=4, alpha=12.0)
    monkeypatch.chdir(tmp_path)
    Path("results").mkdir()
    save_lora(Path("results/lora.safetensors"), lora, {})
    convert_file(Path("results/lora.safetensors"), Path("results/lora.diffusers.safetensors"), "diffusers")
    [code] = re.findall(r"<!-- run: adapter -->\n```python\n(.*?)```", TEXT, re.DOTALL)
    strength = float(re.findall(r'"mine", ([\d.]+)\)', code)[0])
    plain = theirs(peer)
    exec(code, {"pipe": SimpleNamespace(transformer=peer)})
    assert (theirs(peer) - plain).abs().max() > 0.05
    apply_lora(small_dit, lora, strength)
    assert_close(theirs(peer), ours(small_dit), atol=2e-5, rtol=1e-5)
    peer.disable_lora()
    assert_close(theirs(peer), plain)
