"""The `hv15` program as a process of its own: exit codes, streams, and names that no terminal can show."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from hv15.train.signals import EXIT_RESUMABLE
from tests.commands.workbench import LORA, Workbench
from tests.runs.project import wait_until
from tests.workflow.project import environment


def program(*words: str | Path, code: str = "from hv15.cli import main; sys.exit(main())") -> list[str]:
    return [sys.executable, "-c", f"import sys; {code}", *map(str, words)]


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        program(*words), env=environment(), capture_output=True, text=True, encoding="utf-8", check=False
    )


def models_made_later(project: Workbench) -> None:
    """Leave a check no models to look at: that takes seconds."""
    project.write({**project.config, "models": {"source": "demo", "directory": "later"}})


@pytest.mark.slow
def test_a_users_mistake_is_code_2_on_stderr(tmp_path: Path) -> None:
    done = run("gc", "--config", tmp_path / "config.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert "hint: " in done.stderr


@pytest.mark.slow
def test_python_runs_it_as_a_module(tmp_path: Path) -> None:
    """With -P without the Python files of the folder in which it is started."""
    (tmp_path / "argparse.py").write_text("raise SystemExit('a trap')")
    words = [sys.executable, "-P", "-m", "hv15", "gc", "--config", "config.yaml"]
    done = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.partition(":")[0]) == (2, "error")


@pytest.mark.slow
def test_names_that_are_not_utf8_can_be_told(done: Workbench) -> None:
    name = os.fsdecode(b"caf\xe9")
    (done.clips / f"{name}.mp4").touch()
    (done.clips / f"{name}.txt").write_text((min(done.clips.glob("*.txt"))).read_text())
    done.encode(bad_clips="skip")
    said = run("report", done.root)
    assert (said.returncode, "caf\\udce9.mp4: empty file" in said.stdout) == (0, True), said


@pytest.mark.slow
def test_a_check_tells_them_too(project: Workbench) -> None:
    name = os.fsdecode(b"caf\xe9")
    (project.clips / f"{name}.mp4").touch()
    (project.clips / f"{name}.txt").write_text("a caption")
    models_made_later(project)
    done = run("check", "--config", project.root / "config.yaml")
    assert done.returncode == 2
    assert "caf\\udce9.mp4: empty file" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_error(done: Workbench) -> None:
    """As in `hv15 show FILE | head -1`; the output is longer than a pipe holds."""
    long = "import hv15.commands.provenance as p; p.describe = lambda path: 'x' * 10**6"
    code = f"{long}; from hv15.cli import main; sys.exit(main())"
    with subprocess.Popen(
        program("show", done.root / LORA, code=code), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


@pytest.mark.parametrize("words", [pytest.param(("status",), marks=pytest.mark.slow), ("--help",)])
def test_a_reader_that_has_gone_before_the_first_word_is_no_error(project: Workbench, words: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    of = [project.root] if words == ("status",) else []
    done = subprocess.run(program(*words, *of), env=environment(), stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("words", ["status"])
def test_output_that_cannot_be_written_is_said_in_a_sentence(project: Workbench, words: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            program(words, project.root), env=environment(), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr == "error: the output cannot be written: No space left on device\n"


@pytest.mark.slow
@pytest.mark.parametrize("words", ["status", "check"])
def test_a_closed_output_gives_no_traceback(project: Workbench, words: str) -> None:
    models_made_later(project)
    command = ["sh", "-c", 'exec "$@" >&-', "sh", *program(words, project.root)]
    done = subprocess.run(command, env=environment(), stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


def test_an_output_that_is_not_utf8_escapes_what_it_cannot_say(tmp_path: Path) -> None:
    """An old locale, or a terminal of another world."""
    ascii_only = environment() | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = program("check", tmp_path / "Wäsche 漢")  # which does not exist
    done = subprocess.run(command, env=ascii_only, capture_output=True, check=False)
    assert b"Traceback" not in done.stderr
    assert b"sche " in done.stdout
    assert done.stdout.isascii()


@pytest.mark.slow
def test_a_training_in_a_terminal_that_is_closed_saves_its_state(done: Workbench) -> None:
    done.set(train={"max_train_steps": 2000})
    output = done.root / "results" / "other" / "lora.safetensors"
    metrics, states = output.parent / "train" / "metrics.jsonl", output.parent / "train" / "state"
    master, slave = pty.openpty()
    command = ["setsid", "--ctty", *program("train", done.root, "--out", output)]
    with subprocess.Popen(command, env=environment(), stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        wait_until(lambda: metrics.exists() and metrics.read_bytes().count(b"\n") > 3)
        os.close(master)
        assert process.wait(60) == EXIT_RESUMABLE
    assert list(states.glob("*/state.json"))
