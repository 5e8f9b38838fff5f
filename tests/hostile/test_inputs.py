"""Every hostile input ends in a sentence, within its CPU time and its memory."""

from __future__ import annotations

import importlib
import io
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest

from hv15 import cli
from tests.hostile import configs, dataset_files, headers, links, loras, media, models, names, projects, runs
from tests.hostile.entry import Hostile
from tests.hostile.texts import OBEYED
from tests.zygote import IMPORTED, LIMITS, write_command, zygote

INPUTS: dict[str, Hostile] = {
    name: each
    for kind in (configs, dataset_files, headers, links, loras, media, models, names, projects, runs)
    for name, each in kind.INPUTS.items()
}
LARGE = {
    *("config: many values", "config: many keys", "config: an open list", "config: a key many times"),
    *("header: many axes", "header: too many short tensors", "header: a million tensors", "header: many lists"),
    *("index: 20,000 shards", "picture: 300 shapes"),
}
"""Inputs that take long to make or to read; smaller ones of each kind are quick."""
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


def called(each: Hostile) -> tuple[int, str]:
    """Call the command in this process; return its exit code and what it prints, on both streams.

    Its memory is limited by the kernel. A loop of Python that computes for too long ends with an error.
    """
    out, err = (
        io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=errors) for errors in ("strict", "backslashreplace")
    )
    with memory_for(each.mib), seconds_for(each.seconds), redirect_stdout(out), redirect_stderr(err):
        try:
            code = cli.main(each.command)
        except SystemExit as stop:
            code = int(stop.code or 0)
    for stream in (out, err):
        stream.flush()
    return code, "".join(stream.buffer.getvalue().decode() for stream in (out, err))  # type: ignore[attr-defined]


@contextmanager
def memory_for(mib: int) -> Iterator[None]:
    """Let this process have so much more memory, as tests/zygote.py does."""
    used = re.search(r"^VmData:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    assert used is not None
    before, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, ((int(used[1]) << 10) + (mib << 20), most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, most))


@contextmanager
def seconds_for(seconds: float) -> Iterator[None]:
    """Let this process compute for so long."""

    def end(*_: object) -> None:
        raise AssertionError(f"it computes for more than {seconds} s")

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    start = time.process_time()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    assert time.process_time() - start < seconds


@pytest.fixture(scope="module")
def imported() -> None:
    """What a command imports is none of its own memory and time."""
    for name in IMPORTED:
        importlib.import_module(name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project's folder, beside another one in which nothing may change."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/notes.txt").write_text(NOTES)
    return tmp_path / "project"


def make(each: Hostile, folder: Path, request: pytest.FixtureRequest) -> None:
    if each.finished:
        shutil.copytree(request.getfixturevalue("finished").root, folder)
    else:
        folder.mkdir()
    each.make(folder)


def ends_in_a_sentence(each: Hostile, folder: Path, code: int, text: str, log: str = "") -> None:
    """`log`: what is printed by the log, if that is caught by itself."""
    for part in each.said:
        assert part in text + log, f"expected {part!r}\n{text[-3000:]}"
    assert code == each.code, text[-3000:]
    assert "Traceback" not in text
    assert len(text) < 40_000
    assert max(map(len, text.split("\n"))) < 1500
    assert not OBEYED.search(re.sub(r"\n", "", text)), text
    assert not re.search(r"^(error|  hint): forged", text, re.M), text
    if "error: " in each.said[0]:
        assert re.search(r"^  hint: \S", text, re.M), text
    outside = folder.with_name("outside")
    assert [path.name for path in outside.iterdir()] == ["notes.txt"]
    assert (outside / "notes.txt").read_text() == NOTES
    assert not list(folder.parent.rglob("ran")), "something was run"


@pytest.mark.usefixtures("imported")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in INPUTS]
)
def test_it_ends_in_a_sentence(
    name: str,
    folder: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make(INPUTS[name], folder, request)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HV15_OUTPUT", "")
    code, text = called(INPUTS[name])
    ends_in_a_sentence(INPUTS[name], folder, code, text, caplog.text)


@pytest.mark.slow
@pytest.mark.parametrize("name", INPUTS)
def test_as_a_program_it_ends_in_a_sentence(
    name: str, program: Path, folder: Path, request: pytest.FixtureRequest
) -> None:
    """The kernel enforces its time, too."""
    make(INPUTS[name], folder, request)
    done = said_by(program, INPUTS[name], folder)
    ends_in_a_sentence(INPUTS[name], folder, done.returncode, done.stdout + done.stderr)


def forever() -> None:
    while True:
        pass


def test_the_limits_are_real() -> None:
    """The memory is more than earlier tests may have left free in this process, and is not written to."""
    with memory_for(300), pytest.raises(MemoryError):
        np.empty(400 << 20, np.uint8)
    with memory_for(1000):
        np.empty(400 << 20, np.uint8)
    with pytest.raises(AssertionError, match="computes for more than"), seconds_for(0.2):
        forever()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "limits"),
    [("import time\nwhile time.process_time() < 1.5: pass", (1, 300)), ("bytearray(400 << 20)", (5, 300))],
    ids=["time", "memory"],
)
def test_the_limits_of_a_program_are_real(words: str, limits: tuple[int, int], program: Path, tmp_path: Path) -> None:
    """The same calls with room for them end as they should."""
    file = tmp_path / "program.py"
    file.write_text(f"{words}\nprint('done')\n")
    write_command(tmp_path / "program", program.with_name("socket"), str(file))
    for seconds, mib, ends in ((*limits, False), (60, 1000, True)):
        done = said_by(tmp_path / "program", Hostile(str, (), (), seconds=seconds, mib=mib), tmp_path)
        assert (done.stdout == "done\n") is ends
