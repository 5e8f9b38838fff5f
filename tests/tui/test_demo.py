"""The recorded run replayed: by a clock of the test, and as a process that is stopped and killed like any run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hv15 import cli
from hv15.config.load import load_config
from hv15.errors import USER_ERROR, UserError
from hv15.runs import control, lock
from hv15.runs.record import history
from hv15.runs.state import RunState, current, status
from tests.runs.project import wait_until
from tui.demo.project import demo_project, made_up_gpu
from tui.demo.replay import Replay
from tui.demo.timeline import RECORDING

BEGAN = 1_800_000_000.0


class Clock:
    now = BEGAN

    def __call__(self) -> float:
        return self.now


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def replay(tmp_path: Path, clock: Clock) -> Iterator[Replay]:
    with Replay(tmp_path / "demo", clock=clock) as made:
        yield made


def test_the_run_grows_with_the_clock_and_ends(replay: Replay, clock: Clock) -> None:
    metrics = replay.root / "results/train/metrics.jsonl"
    seen = []
    for share in (0.0, 0.25, 0.5, 1.0):
        clock.now = BEGAN + share * replay.seconds + 0.01
        replay.advance()
        seen.append(len(lines(metrics)))
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0, len(lines(RECORDING / "run/results/train/metrics.jsonl")))
    found = current(replay.root)
    assert found is not None
    assert (found.state, found.failed, found.done) == (RunState.FINISHED, (), found.total)
    assert lock.holder(replay.root) is None


def test_it_runs_by_the_lock_and_its_times_are_those_of_the_clock(replay: Replay, clock: Clock) -> None:
    clock.now += replay.seconds / 2
    assert replay.advance()
    found = current(replay.root)
    assert found is not None
    assert found.state is RunState.RUNNING
    times = [event["time"] for event in lines(replay.run.events)]
    assert BEGAN <= min(times) <= max(times) <= clock.now


def test_at_another_speed_durations_and_rates_are_those_of_a_faster_machine(tmp_path: Path, clock: Clock) -> None:
    recorded = [each for each in lines(RECORDING / "run/results/train/metrics.jsonl") if each["kind"] == "step"]
    with Replay(tmp_path / "demo", clock=clock, speed=4.0, at=1.0) as replay:
        replay.advance()
        found = [each for each in lines(replay.root / "results/train/metrics.jsonl") if each["kind"] == "step"]
    for name, factor in (("step_s", 0.25), ("data_wait_s", 0.25), ("samples_per_s", 4.0), ("loss", 1.0), ("lr", 1.0)):
        assert [each[name] for each in found] == pytest.approx([factor * each[name] for each in recorded]), name
    assert found[-1]["time"] - found[0]["time"] == pytest.approx(
        (recorded[-1]["time"] - recorded[0]["time"]) / 4, abs=0.01
    )


def test_a_second_run_in_the_same_folder_is_refused(replay: Replay) -> None:
    with pytest.raises(UserError, match="a run is already in progress"):
        Replay(replay.root)


def test_the_history_lies_before_it(replay: Replay) -> None:
    first, *earlier = history(replay.root)
    assert first.id == replay.run.id
    assert {status(run, None).state for run in earlier} == {RunState.FINISHED, RunState.STOPPED}
    assert all(run.record().started < BEGAN for run in earlier)  # type: ignore[union-attr]


def test_the_recording_is_a_project_that_names_no_machine() -> None:
    assert load_config(RECORDING / "project/config.yaml").task == "t2v"
    for path in RECORDING.rglob("*"):
        if path.suffix in (".json", ".jsonl", ".log", ".yaml"):
            text = path.read_text(encoding="utf-8")
            assert not any(word in text for word in ("/tmp/", "/home/", "/root", "/work/")), path
    assert sum(path.stat().st_size for path in RECORDING.rglob("*") if path.is_file()) < 700_000


def start_process(root: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "tui.demo.replay", str(root), "--speed", "11"]  # for two minutes, as in the demo
    process = subprocess.Popen(words, start_new_session=True)
    wait_until(lambda: lock.holder(root))
    wait_until(lambda: (found := current(root)) and found.state is RunState.RUNNING)
    return process


def test_as_a_process_it_is_stopped_like_any_run(tmp_path: Path) -> None:
    process = start_process(tmp_path)
    control.stop(tmp_path)
    assert process.wait(60) == 1
    found = current(tmp_path)
    assert found is not None
    assert found.state is RunState.STOPPED
    assert not control.orphans(tmp_path)


@pytest.mark.slow
def test_killed_it_is_dead_at_once(tmp_path: Path) -> None:
    process = start_process(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    wait_until(lambda: (found := current(tmp_path)) and found.state is RunState.DIED)
    assert not psutil.pid_exists(process.pid)


def test_the_demo_leaves_nothing_behind() -> None:
    with demo_project() as config:
        root = config.parent
        assert lock.holder(root)
        [run, *_] = history(root)
        record = run.record()
        assert record is not None
        assert psutil.pid_exists(record.pid)
        assert load_config(config).task == "t2v"
    assert not root.exists()
    assert not psutil.pid_exists(record.pid)


def test_a_terminal_that_is_closed_leaves_nothing_behind_either(tmp_path: Path) -> None:
    program = """
import time
from tui.demo.project import demo_project
with demo_project() as config:
    print(config, flush=True)
    time.sleep(60)
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip().endswith(b"config.yaml")
        assert list(tmp_path.iterdir())
        os.kill(process.pid, signal.SIGHUP)
        assert process.wait(20) == 128 + signal.SIGHUP
    assert not list(tmp_path.iterdir())


def test_the_made_up_gpu_says_that_it_is_none(clock: Clock) -> None:
    gpus = made_up_gpu(clock)
    for clock.now in (BEGAN, BEGAN + 100, BEGAN + 1e6):
        [gpu] = gpus.read()
        assert "made up" in gpu.name
        assert 0 < gpu.used < gpu.total
        assert 0 <= (gpu.utilisation or 0) <= 100


@pytest.mark.parametrize(("words", "served"), [(["--demo"], ["--demo"]), (["PROJECT"], ["PROJECT/config.yaml"])])
def test_a_served_page_opens_the_same_thing(
    words: list[str],
    served: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "config.yaml").write_text("task: t2v\n")
    asked: list[tuple[list[str], int]] = []
    monkeypatch.setattr("tui.serve.serve", lambda arguments, port: asked.append((arguments, port)) or 0)
    here = [word.replace("PROJECT", str(tmp_path)) for word in words]
    assert cli.main(["tui", *here, "--serve", "--port", "0"]) == 0
    assert asked == [([word.replace("PROJECT", str(tmp_path)) for word in served], 0)]
    assert cli.main(["tui", str(tmp_path / "nowhere"), "--serve"]) == USER_ERROR
    assert "no such file" in capsys.readouterr().err
