"""The words of other programs: the one place where text is searched."""

from __future__ import annotations

import pytest

from hv15.records.failures import FailureKind
from hv15.runs.foreign_messages import facts, failure_by_exit, failure_in_log, failure_of_run, unknown_target

OOM = """\
  File "/x/torch/nn/functional.py", line 12, in linear
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.6 GiB
"""
BUG = "Traceback (most recent call last):\n  File \"/x/hv15/train/loop.py\", line 12, in run\n    a\nKeyError: 'lr'\n"


@pytest.mark.parametrize(
    ("text", "kind", "cause"),
    [
        (OOM, "memory", "the GPU ran out of memory"),
        ("RuntimeError: [enforce fail] . DefaultCPUAllocator: can't allocate memory", "memory", "the machine ran out"),
        ("cp: error writing 'x': No space left on device", "user", "the disk is full"),
        ("/bin/bash: line 1:  4242 Killed   hv15 train", "killed", "it was killed"),
        (BUG, "bug", "KeyError: 'lr'"),
        ("Fatal Python error: Segmentation fault", "bug", "it crashed in native code"),
        ("RuntimeError: CUDA error: device-side assert triggered", "unknown", "RuntimeError: CUDA error: device-side"),
        ("requests.exceptions.ConnectionError: ('Connection aborted.')", "user", "the download failed"),
        ("some tool said this", "unknown", "its last words: some tool said this"),
        ("", "unknown", "its log says nothing"),
    ],
)
def test_the_cause_in_one_sentence(text: str, kind: str, cause: str) -> None:
    failure = failure_in_log(text.splitlines())
    assert failure.kind == kind
    assert failure.cause.startswith(cause)
    assert failure.cure


def test_an_exception_is_placed() -> None:
    assert failure_in_log(BUG.splitlines()).place == "loop.py:12"


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("Command 'x' returned non-zero exit status 137.", FailureKind.KILLED),
        ("Command 'x' died with <Signals.SIGKILL: 9>.", FailureKind.KILLED),
        ("Command 'x' returned non-zero exit status 139.", FailureKind.BUG),
        ("Command 'x' returned non-zero exit status 143.", FailureKind.STOPPED),
        ("Command 'x' died with <Signals.SIGINT: 2>.", FailureKind.STOPPED),
        ("Command 'x' returned non-zero exit status 1.", None),
        ("MissingOutputException", None),
    ],
)
def test_a_signal_is_known_by_the_exit(words: str, kind: FailureKind | None) -> None:
    failure = failure_by_exit(words)
    assert (failure and failure.kind) == kind


def test_why_snakemake_failed() -> None:
    output = 'host: x\nWorkflowError in file "/x/Snakefile", line 3:\nconfig.yaml:3:1 is wrong\nsecond line\n'
    assert failure_of_run(output.splitlines(), "?").cause == "config.yaml:3:1 is wrong\nsecond line"
    locked = failure_of_run(["LockException:", "Error: Directory cannot be locked."], "?")
    assert "lock" in locked.cause
    assert failure_of_run(["words"], "the reason").cause == "the reason"


def test_a_target_that_the_config_does_not_ask_for() -> None:
    said = "MissingRuleException:\nNo rule to produce results/x y.mp4 (if you use input functions make sure that ...)."
    assert str(unknown_target(said)).startswith("results/x y.mp4: the config asks for nothing with that name")
    assert unknown_target("WorkflowError:\nsomething else") is None


def test_facts_leave_out_headings_and_places() -> None:
    assert facts('WorkflowError in file "x", line 3:\n  File "x", line 3, in y\nconfig.yaml: x\n') == ["config.yaml: x"]
    assert facts("WorkflowError:") == ["WorkflowError:"]
