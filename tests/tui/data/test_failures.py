from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hv15.atomic import write_json
from hv15.records.failures import Failure, FailureKind, FailureRecord
from hv15.records.fields import to_json
from hv15.records.paths import ProjectPaths
from hv15.runs.record import RunFolder
from hv15.runs.state import RunState, RunStatus
from tui.data.failures import failure_cards
from tui.data.jobs import Job, JobState

OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n"
SAID = Failure("step 3: the loss is nan", "lower train.learning_rate", FailureKind.USER)


def job(root: Path, state: JobState, text: str, failure: Failure | None = None) -> Job:
    (root / "train.log").write_text(text)
    return Job(1, "train", state=state, log=("train.log",), failure=failure)


def status(root: Path, state: RunState, reason: str = "") -> RunStatus:
    run = RunFolder(root, "one")
    run.path.mkdir(parents=True, exist_ok=True)
    return RunStatus(run, None, state, reason)


def test_a_card_says_what_the_job_said_and_shows_the_end_of_its_log(tmp_path: Path) -> None:
    failed = job(tmp_path, JobState.FAILED, "\x1b[31mstep 1\x1b[0m\n" + OOM + "\n\n", SAID)
    [card] = failure_cards(tmp_path, [failed], None)
    assert (card.title, card.failure, card.tail[0]) == ("train the LoRA", SAID, "step 1")
    assert card.log == tmp_path / "train.log"
    [card] = failure_cards(tmp_path, [replace(failed, failure=None)], None)
    assert card.failure.kind is FailureKind.MEMORY, "of a program that leaves no record"
    assert failure_cards(tmp_path, [job(tmp_path, JobState.DONE, OOM)], None) == ()


def test_a_job_that_outlived_its_run_is_asked_for_its_own_record(tmp_path: Path) -> None:
    died = status(tmp_path, RunState.DIED, "kill -9")
    cut = job(tmp_path, JobState.CUT, "step 3\n")
    [card] = failure_cards(tmp_path, [cut], died)
    assert card.failure.cause == "it was cut short when the run ended"
    record = FailureRecord(rule="train", command=("hv15", "train"), failure=SAID)
    write_json(ProjectPaths().failure(tmp_path / "train.log"), to_json(record))
    [card] = failure_cards(tmp_path, [cut], died)
    assert card.failure == SAID


def test_a_stop_on_request_is_no_failure(tmp_path: Path) -> None:
    stopped = status(tmp_path, RunState.STOPPED)
    assert failure_cards(tmp_path, [job(tmp_path, JobState.FAILED, "its last words")], stopped) == ()
    assert failure_cards(tmp_path, [job(tmp_path, JobState.CUT, "x")], stopped) == ()
    assert len(failure_cards(tmp_path, [job(tmp_path, JobState.FAILED, OOM)], stopped)) == 1


def test_a_run_that_failed_before_any_job(tmp_path: Path) -> None:
    failed = status(tmp_path, RunState.FAILED, "config.yaml:3:1 is wrong")
    failed.run.output.write_text('host: x\nWorkflowError in file "/x/Snakefile", line 3:\nconfig.yaml:3:1 is wrong\n')
    [card] = failure_cards(tmp_path, [], failed)
    assert card.failure.cause == "config.yaml:3:1 is wrong"
    [card] = failure_cards(tmp_path, [], replace(failed, failure=SAID))
    assert card.failure == SAID, "what hv15 said is not read back from the output"
    died = status(tmp_path, RunState.DIED, "it was killed from outside")
    [card] = failure_cards(tmp_path, [], died)
    assert card.failure.kind is FailureKind.KILLED
    assert failure_cards(tmp_path, [], status(tmp_path, RunState.FINISHED)) == ()


def test_a_job_whose_log_is_gone(tmp_path: Path) -> None:
    [card] = failure_cards(tmp_path, [Job(1, "train", state=JobState.FAILED, log=("none.log",))], None)
    assert (card.log, card.tail, card.failure.kind) == (None, (), FailureKind.UNKNOWN)
