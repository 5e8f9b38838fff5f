"""What is read of a project's runs and jobs together."""

from __future__ import annotations

import json
from pathlib import Path

from hv15.records.events import JobDone, JobFailed, JobStarted, RunEnded
from hv15.records.failures import Failure, FailureKind
from hv15.runs.record import RunFolder
from tests.tui.data.test_jobs import append, job, plan
from tests.tui.recorded import replay_at
from tui.data.jobs import JobState
from tui.data.system import ScriptedGpus
from tui.project_files import ProjectFiles


def test_what_a_requested_stop_ended_is_cut_short_and_what_broke_meanwhile_failed(tmp_path: Path) -> None:
    """Snakemake reports both as failed; what the jobs say themselves tells them apart, and else their logs."""
    (tmp_path / "config.yaml").write_text("task: t2v\n")
    (tmp_path / "encode.log").write_text("torch.OutOfMemoryError: CUDA out of memory.\n")
    run = RunFolder(tmp_path, "20270115-080000-0000")
    run.create(tmp_path / "config.yaml")
    train, encode, other = jobs = [job(1, "train"), job(2, "encode", log=("encode.log",)), job(3, "other")]
    append(run.events, plan(*jobs), *(JobStarted(time=1.0, job=each) for each in jobs))
    run.stop.write_text(json.dumps({"time": 2.0, "now": False}) + "\n")
    stopped = Failure("it saved its state", "start again", FailureKind.STOPPED, saved_step=8)
    append(run.events, JobFailed(time=3.0, job=train, failure=stopped), JobFailed(time=3.0, job=encode))
    append(run.events, JobFailed(time=3.0, job=other), RunEnded(time=4.0, done=0, total=3, failed=(1, 2, 3)))
    files = ProjectFiles(tmp_path / "config.yaml", gpus=ScriptedGpus(lambda: ()))
    files.read_run()
    view = files.read_jobs()
    assert view is not None
    states = {each.rule: each.state for each in view.jobs}
    assert states == {"train": JobState.CUT, "encode": JobState.FAILED, "other": JobState.CUT}
    assert view.progress.failed == 1
    assert [card.failure.kind for card in view.failures] == ["memory"]
    assert files.read_jobs() is None, "nothing is new"


def test_a_dead_run_will_never_be_done(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("task: t2v\n")
    run = RunFolder(tmp_path, "20270115-080000-0000")
    run.create(tmp_path / "config.yaml")
    jobs = [job(number, "encode", wildcards={"shard": str(number)}) for number in (1, 2, 3)]
    append(run.events, plan(*jobs), JobStarted(time=1.0, job=jobs[0]), JobDone(time=9.0, id=1))
    append(run.events, JobStarted(time=9.0, job=jobs[1]))
    files = ProjectFiles(tmp_path / "config.yaml", gpus=ScriptedGpus(lambda: ()))
    files.read_run()
    view = files.read_jobs()
    assert view is not None
    assert {each.state for each in view.jobs} == {JobState.DONE, JobState.CUT, JobState.WAITING}
    assert view.progress.eta_s is None


def test_numbers_of_an_earlier_training_are_known_as_such_once_the_run_is_seen(tmp_path: Path) -> None:
    with replay_at(tmp_path / "demo", 0.02) as replay:
        files = ProjectFiles(replay.root / "config.yaml", gpus=ScriptedGpus(lambda: ()))
        view = files.read_metrics()
        assert view is not None
        assert not view.training.former
        files.read_run()
        view = files.read_metrics()
        assert view is not None
        assert view.training.former
        assert files.read_metrics() is None, "nothing is new"
