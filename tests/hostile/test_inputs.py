"""Every hostile input ends in a sentence, within its CPU time and its memory."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile import configs, dataset_files, headers, links, loras, media, models, names, projects, runs
from tests.hostile.entry import Hostile
from tests.hostile.texts import OBEYED
from tests.zygote import LIMITS, write_command, zygote

INPUTS: dict[str, Hostile] = {
    name: each
    for kind in (configs, dataset_files, headers, links, loras, media, models, names, projects, runs)
    for name, each in kind.INPUTS.items()
}
NOTES = "somebody's words\n"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with zygote(tmp_path_factory.mktemp("zygote")) as folder:
        yield folder / "hv15"


def said_by(program: Path, each: Hostile, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *each.command],
        cwd=folder,
        env={**os.environ, LIMITS: f"{each.seconds} {each.mib}", "HV15_OUTPUT": ""},
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
    )


@pytest.mark.parametrize("name", INPUTS)
def test_it_ends_in_a_sentence(name: str, program: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    each, folder, outside = INPUTS[name], tmp_path / "project", tmp_path / "outside"
    if each.finished:
        shutil.copytree(request.getfixturevalue("finished").root, folder)
    else:
        folder.mkdir()
    outside.mkdir()
    (outside / "notes.txt").write_text(NOTES)
    each.make(folder)
    done = said_by(program, each, folder)
    text = done.stdout + done.stderr
    for part in each.said:
        assert part in text, f"expected {part!r}\n{text[-3000:]}"
    assert done.returncode == each.code, text[-3000:]
    assert "Traceback" not in text
    assert len(text) < 40_000
    assert max(map(len, text.split("\n"))) < 1500
    assert not OBEYED.search(re.sub(r"\n", "", text)), text
    assert not re.search(r"^(error|  hint): forged", text, re.M), text
    if "error: " in each.said[0]:
        assert re.search(r"^  hint: \S", text, re.M), text
    assert [path.name for path in outside.iterdir()] == ["notes.txt"]
    assert (outside / "notes.txt").read_text() == NOTES
    assert not list(tmp_path.rglob("ran")), "something was run"


@pytest.mark.parametrize(
    ("words", "limits"),
    [("import time\nwhile time.process_time() < 1.5: pass", (1, 300)), ("bytearray(400 << 20)", (5, 300))],
    ids=["time", "memory"],
)
def test_the_limits_are_real(words: str, limits: tuple[int, int], program: Path, tmp_path: Path) -> None:
    """The same calls with room for them end as they should."""
    file = tmp_path / "program.py"
    file.write_text(f"{words}\nprint('done')\n")
    write_command(tmp_path / "program", program.with_name("socket"), str(file))
    for seconds, mib, ends in ((*limits, False), (60, 1000, True)):
        done = said_by(tmp_path / "program", Hostile(str, (), (), seconds=seconds, mib=mib), tmp_path)
        assert (done.stdout == "done\n") is ends
