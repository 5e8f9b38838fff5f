from __future__ import annotations

import errno
from pathlib import Path

import pytest

from hv15.atomic import write_text
from hv15.config.datasets import DatasetSettings
from hv15.data.scan import scan
from hv15.errors import UserError
from hv15.runs.record import RunFolder
from hv15.runs.state import RunStatus, State
from tui.data.failures import explain, failure_cards
from tui.data.jobs import Job, JobState

OOM = """\
  File "/x/torch/nn/functional.py", line 12, in linear
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.6 GiB
"""
DIVERGED = "error: step 3: the loss is nan and the gradient norm inf: the training has diverged\n  hint: lower it"
BUG = "Traceback (most recent call last):\n  File \"/x/hv15/train/loop.py\", line 12, in run\n    a\nKeyError: 'lr'\n"


@pytest.mark.parametrize(
    ("text", "kind", "cause"),
    [
        (OOM, "memory", "the GPU's memory was not enough"),
        ("RuntimeError: [enforce fail] . DefaultCPUAllocator: can't allocate memory", "memory", "the machine's memory"),
        (DIVERGED, "diverged", "step 3: the loss is nan"),
        ("OSError: [Errno 28] No space left on device", "disk", "the disk is full"),
        ("/bin/bash: line 1:  4242 Killed   hv15 train", "killed", "it was killed"),
        (BUG, "bug", "KeyError: 'lr' (loop.py:12)"),
        ("RuntimeError: CUDA error: device-side assert triggered", "unknown", "RuntimeError: CUDA error: device-side"),
        ("requests.exceptions.ConnectionError: ('Connection aborted.')", "missing", "the download did not succeed"),
        ("WARNING saved at step 812; run the same command to go on", "stopped", "it was stopped"),
        ("some tool said this", "unknown", "its last words: some tool said this"),
        ("", "unknown", "it wrote nothing"),
        ("error: /m/dit.safetensors: does not exist\n  hint: get it", "missing", "/m/dit.safetensors: does not"),
    ],
)  # fmt: skip
def test_the_cause_in_one_sentence(text: str, kind: str, cause: str) -> None:
    failure = explain(text)
    assert failure.kind == kind
    assert failure.cause.startswith(cause)
    assert failure.cure


def test_what_hv15_itself_says_is_taken_with_its_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The messages are those that the program really raises."""
    (tmp_path / "a.mp4").touch()
    (tmp_path / "b.mp4").touch()
    with pytest.raises(UserError) as caption:
        scan(DatasetSettings(video_directory="."), tmp_path)
    failure = explain(f"progress 1\nerror: {caption.value}")
    assert (failure.kind, failure.cure) == ("caption", caption.value.hint)
    assert "a.mp4: no caption" in failure.cause

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError) as disk:
        write_text(tmp_path / "x", "y")
    assert explain(f"error: {disk.value}").kind == "disk"


def job(root: Path, state: JobState, text: str) -> Job:
    (root / "train.log").write_text(text)
    return Job(1, "train", state=state, log=("train.log",))


def status(root: Path, state: State, reason: str = "") -> RunStatus:
    run = RunFolder(root, "one")
    run.path.mkdir(parents=True, exist_ok=True)
    return RunStatus(run, None, state, reason)


def test_cards(tmp_path: Path) -> None:
    [card] = failure_cards(tmp_path, [job(tmp_path, JobState.FAILED, "\x1b[31mstep 1\x1b[0m\n" + OOM + "\n\n")], None)
    assert (card.title, card.failure.kind, card.tail[0]) == ("train", "memory", "step 1")
    assert card.log == tmp_path / "train.log"
    assert failure_cards(tmp_path, [job(tmp_path, JobState.DONE, OOM)], None) == ()


def test_a_stop_on_request_is_no_failure(tmp_path: Path) -> None:
    saved = "saved at step 8; run the same command to go on"
    stopped = status(tmp_path, State.STOPPED)
    assert failure_cards(tmp_path, [job(tmp_path, JobState.FAILED, saved)], stopped) == ()
    assert failure_cards(tmp_path, [job(tmp_path, JobState.CUT, "x")], stopped) == ()
    assert len(failure_cards(tmp_path, [job(tmp_path, JobState.FAILED, OOM)], stopped)) == 1


def test_a_run_that_failed_before_any_job(tmp_path: Path) -> None:
    failed = status(tmp_path, State.FAILED, "config.yaml:3:1 is wrong")
    failed.run.output.write_text(
        'host: x\nWorkflowError in file "/x/Snakefile", line 3:\n'
        "config.yaml:3:1 train.seed: found 'x', expected a whole number\n  hint: put a number there\n"
    )
    [card] = failure_cards(tmp_path, [], failed)
    assert card.failure.cause == "config.yaml:3:1 train.seed: found 'x', expected a whole number"
    assert card.failure.cure == "put a number there"
    died = status(tmp_path, State.DIED, "it was killed from outside")
    [card] = failure_cards(tmp_path, [], died)
    assert card.failure.kind == "killed"
    assert failure_cards(tmp_path, [], status(tmp_path, State.FINISHED)) == ()


def test_a_job_whose_log_is_gone(tmp_path: Path) -> None:
    [card] = failure_cards(tmp_path, [Job(1, "train", state=JobState.FAILED, log=("none.log",))], None)
    assert (card.log, card.tail, card.failure.kind) == (None, (), "unknown")
