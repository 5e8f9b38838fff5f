from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from hv15.records.events import JobsCounted, RunEnded
from hv15.runs import lock
from hv15.runs.processes import catches
from hv15.runs.record import RunFolder, append_event, new_run
from hv15.runs.state import RunState
from tui.data.config_diff import Change, setting_changes, text_diff
from tui.data.history import HistoryReader

OLD = "task: t2v\ntrain:\n  learning_rate: 1e-4 # low\n  seed: 1\nsample:\n  prompts:\n    - name: a\n      prompt: b\n"


def make_run(root: Path, run_id: str, config: str, end: bool = True) -> RunFolder:
    file = root / "config.yaml"
    file.write_text(config)
    run = RunFolder(root, run_id)
    run.create(file)
    run.write_record(os.getpid(), ["snakemake", "a b"], ["all"])
    append_event(run.events, JobsCounted(done=1, total=2))
    if end:
        append_event(run.events, RunEnded(time=2e9, done=2, total=2))
    return run


def test_rows_with_what_changed_between_them(tmp_path: Path) -> None:
    make_run(tmp_path, "20260101-000000-aaaa", OLD)
    make_run(tmp_path, "20260102-000000-aaaa", OLD.replace("1e-4 # low", "2e-4"))
    reader = HistoryReader(tmp_path)
    assert reader.refresh()
    newest, first = reader.rows
    assert newest.changes == (Change("train.learning_rate", "0.0001", "0.0002"),)
    assert first.changes == ()
    assert (newest.state, newest.done, newest.command) == (RunState.FINISHED, 2, "snakemake 'a b'")
    assert not reader.refresh(full=True)


def test_a_run_is_seen_to_live_and_to_die_by_its_lock(tmp_path: Path) -> None:
    make_run(tmp_path, "20260101-000000-aaaa", OLD)
    reader = HistoryReader(tmp_path)
    reader.refresh()
    run = make_run(tmp_path, "20260102-000000-aaaa", OLD, end=False)
    descriptor = lock.take(tmp_path, run.id)
    assert descriptor is not None
    reader.refresh()
    assert reader.current is not None
    assert (reader.current.id, reader.current.state, reader.current.alive) == (run.id, RunState.RUNNING, True)
    os.close(descriptor)
    reader.refresh()
    assert reader.rows[0].state is RunState.DIED
    assert reader.current == reader.rows[0]


def test_a_hundred_runs_and_a_broken_one(tmp_path: Path) -> None:
    for number in range(100):
        make_run(tmp_path, f"202601{number // 10:02}-0000{number % 10:02}-aaaa", OLD)
    (tmp_path / ".hv15/runs/20260109-000009-aaaa/run.json").write_text("{")
    (tmp_path / ".hv15/runs/20260109-000008-aaaa/config.yaml").unlink()
    (tmp_path / ".hv15/runs/20260109-000007-aaaa/config.yaml").write_bytes(b"\xff: [")
    reader = HistoryReader(tmp_path)
    reader.refresh()
    assert len(reader.rows) == 100
    assert reader.rows[0].started is None


def test_a_run_that_has_no_record_yet_is_not_taken_for_dead_for_ever(tmp_path: Path) -> None:
    make_run(tmp_path, "20260101-000000-aaaa", OLD)
    run = make_run(tmp_path, "20260102-000000-aaaa", OLD, end=False)
    record = (run.path / "run.json").read_text()
    (run.path / "run.json").unlink()
    reader = HistoryReader(tmp_path)
    reader.refresh(full=True)
    assert reader.rows[0].state is RunState.DIED
    (run.path / "run.json").write_text(record)
    descriptor = lock.take(tmp_path, run.id)
    assert descriptor is not None
    reader.refresh(full=True)
    assert reader.rows[0].state is RunState.RUNNING
    os.close(descriptor)


def test_no_project_at_all(tmp_path: Path) -> None:
    reader = HistoryReader(tmp_path / "nowhere")
    assert not reader.refresh(full=True)
    assert (reader.rows, reader.current, reader.orphans) == ((), None, ())


def test_orphans_of_a_dead_run(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    process = subprocess.Popen(["sleep", "60"], env={**os.environ, "HV15_RUN": run.id})
    try:
        run.create(tmp_path / "config.yaml")
        run.write_record(process.pid, ["sleep"], [])
        reader = HistoryReader(tmp_path)
        reader.refresh(full=True)
        [orphan] = reader.orphans
        assert (orphan.pid, orphan.command) == (process.pid, "sleep 60")
    finally:
        process.kill()
        process.wait()
    reader.refresh(full=True)
    assert reader.orphans == ()


def test_only_a_process_that_listens_is_sent_a_signal() -> None:
    import psutil

    code = "import signal, sys\nsignal.signal(signal.SIGUSR1, print)\nprint(flush=True)\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert catches(psutil.Process(process.pid), signal.SIGUSR1)
        assert not catches(psutil.Process(process.pid), signal.SIGUSR2)
        process.kill()


def test_setting_changes_compare_values_not_text() -> None:
    assert setting_changes(OLD, OLD.replace("1e-4", "0.0001") + "\n# more\n") == []
    new = OLD.replace("  seed: 1\n", "").replace("prompt: b", "prompt: c\n    - name: d\n      prompt: e")
    assert setting_changes(OLD, new) == [
        Change("train.seed", "1", "not set"),
        Change("sample.prompts[0].prompt", "b", "c"),
        Change("sample.prompts[1].name", "not set", "d"),
        Change("sample.prompts[1].prompt", "not set", "e"),
    ]
    assert setting_changes(OLD, "train: [") == []


def test_text_diff_has_line_numbers_of_both() -> None:
    old = "".join(f"{n}\n" for n in range(1, 31))
    lines = text_diff(old, old.replace("5\n", "5\n", 1).replace("\n20\n", "\nx\n"), context=1)
    assert [(each.sign, each.text, each.old_line, each.new_line) for each in lines] == [
        (" ", "19", 19, 19),
        ("-", "20", 20, None),
        ("+", "x", None, 20),
        (" ", "21", 21, 21),
    ]
    assert text_diff(old, old) == []
