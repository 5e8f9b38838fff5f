"""A command starts itself on several ranks: real processes, which stop and fail as one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hv15 import ranks
from hv15.gpus import VISIBLE
from hv15.ranks import RANK, VOICE, WORLD_SIZE, is_first_rank, may_speak, run_on_ranks

PROGRAM = """
import os, signal, subprocess, sys, time
from hv15 import gpus, ranks
ranks.GRACE_S = 0.5
if "WORLD_SIZE" not in os.environ:
    start = subprocess.Popen
    subprocess.Popen = lambda command, **options: start([sys.executable, "-c", sys.argv[1], "x"], **options)
    sys.exit(ranks.run_on_ranks(2, sys.argv[2], 'x is 2'))
rank = int(os.environ["RANK"])
"""
"""The launcher, and a rank, whose own code follows."""


def launch(rank_code: str, device: str = "cpu", **environment: str) -> subprocess.Popen[str]:
    code = PROGRAM + rank_code
    return subprocess.Popen(
        [sys.executable, "-c", code, code, device],
        env={**{name: value for name, value in os.environ.items() if name != WORLD_SIZE}, **environment},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_each_rank_has_torchs_variables_and_its_gpu(tmp_path: Path) -> None:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", VISIBLE)
    show = f"os.write(1, (' '.join(os.environ[name] for name in {names}) + '\\n').encode())"
    environment = {VISIBLE: "a,b,c", "TMPDIR": str(tmp_path)}
    process = launch(show, "auto", **environment)
    out, _ = process.communicate(timeout=60)
    assert sorted(out.splitlines()) == [f"{rank} 2 {rank} 127.0.0.1 a,b" for rank in range(2)]
    assert process.returncode == 0


def test_gpus_stay_locked_until_the_last_rank_has_ended(tmp_path: Path) -> None:
    """Even if the launcher is killed."""
    environment = {VISIBLE: "a,b,c", "TMPDIR": str(tmp_path)}
    process = launch("os.write(1, b'up\\n'); time.sleep(5)", "auto", **environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.kill()
    process.wait()
    ask = "from hv15.gpus import *; take_gpu('auto'); print(os.environ[VISIBLE])"
    other = subprocess.run(
        [sys.executable, "-c", f"import os\n{ask}"],
        env={**os.environ, **environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    os.killpg(process.pid, signal.SIGKILL)
    assert other.stdout == "c\n"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param("sys.exit(0)", 0, marks=pytest.mark.slow),
        ("sys.exit(2 if rank else time.sleep(600))", 2),
        pytest.param("sys.exit(3)", 3, marks=pytest.mark.slow),
        ("os.kill(os.getpid(), signal.SIGKILL) if rank == 0 else time.sleep(600)", 128 + signal.SIGKILL),
    ],
)
def test_the_first_failure_is_that_of_the_command(code: str, expected: int) -> None:
    """The other rank would wait for it forever."""
    assert launch(code).wait(60) == expected


SPEAKING = """
from hv15.ranks import may_speak
os.write(1, b"%d " % may_speak())
"""


def test_of_several_ranks_one_says_why_they_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """And once; a process that is no rank, or to which the file was not given, speaks."""
    out, _ = launch(SPEAKING + 'os.write(1, b"%d " % may_speak())').communicate(timeout=60)
    assert sorted(out.split()) == ["0", "0", "0", "1"]
    monkeypatch.delenv(VOICE, raising=False)
    assert may_speak()
    monkeypatch.setenv(VOICE, "987654")
    assert may_speak()


GRACEFUL = r"""
from hv15.train.signals import Requests
with Requests() as requests:
    os.write(1, b"up\n")
    while not requests.stop:
        if requests.take()[1]:
            os.write(1, b"save %d\n" % rank)
        time.sleep(0.02)
    time.sleep(0.3)  # a second request that is the first one again must do no harm
sys.exit(3)
"""


@pytest.mark.parametrize(
    ("number", "to_all"),
    [
        pytest.param(signal.SIGTERM, False, id="SIGTERM to the launcher"),
        pytest.param(signal.SIGINT, True, id="SIGINT to all processes"),
        pytest.param(signal.SIGHUP, False, id="SIGHUP to the launcher", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, True, id="SIGTERM to all processes", marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, False, id="SIGINT to the launcher", marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, True, id="SIGHUP to all processes", marks=pytest.mark.slow),
    ],
)
def test_a_request_to_stop_reaches_each_rank_as_one_request(number: signal.Signals, to_all: bool) -> None:
    """Whether it is sent to the launcher or to all processes, as Ctrl-C and SLURM do."""
    process = launch(GRACEFUL)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["up\n"] * 2
    if to_all:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    assert process.wait(60) == 3


def test_a_request_to_save_is_forwarded() -> None:
    process = launch(GRACEFUL)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["up\n"] * 2
    process.send_signal(signal.SIGUSR1)
    assert sorted(process.stdout.readline() for _ in range(2)) == ["save 0\n", "save 1\n"]
    process.terminate()
    assert process.wait(60) == 3


def test_a_second_request_ends_ranks_that_do_not_listen() -> None:
    stubborn = "signal.signal(signal.SIGHUP, signal.SIG_IGN); os.write(1, b'up\\n'); time.sleep(600)"
    process = launch(stubborn)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["up\n"] * 2
    process.terminate()
    time.sleep(0.3)
    assert process.poll() is None
    process.terminate()
    assert process.wait(60) == -signal.SIGTERM


def test_one_rank_and_a_rank_itself_start_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "_start", lambda *_: pytest.fail("started"))
    monkeypatch.delenv(WORLD_SIZE, raising=False)
    monkeypatch.delenv(RANK, raising=False)
    assert run_on_ranks(1, "auto", "") is None
    assert is_first_rank()
    monkeypatch.setenv(WORLD_SIZE, "2")
    monkeypatch.setenv(RANK, "1")
    assert run_on_ranks(2, "auto", "") is None
    assert not is_first_rank()
