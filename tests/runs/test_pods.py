"""Jobs on Kubernetes: what is asked of `kubectl`, what its answers mean, and how a pod stops. No cluster is needed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from hv15.errors import UserError
from hv15.runs import pods
from hv15.runs.pods import Asked, manifest

TEMPLATE = Path(__file__).parents[2] / "profiles/kubernetes/pod.yaml"
ASKED = Asked(memory_mb=48_000, cpus=8, gpus=2, minutes=90)


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in that notes its words and its input, and prints what `answer` holds."""
    program = tmp_path / "kubectl"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/words\ncat > {tmp_path}/input\n'
        f"cat {tmp_path}/answer; test ! -e {tmp_path}/refuse\n"
    )
    program.chmod(0o755)
    (tmp_path / "answer").touch()
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def test_the_template_gets_the_command_and_what_the_job_asks_for() -> None:
    """Everything else stays as it is written."""
    job: Any = manifest(TEMPLATE, "/project/.snakemake/tmp/job.sh", ASKED)
    before = yaml.safe_load(TEMPLATE.read_text())
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container.pop("command") == ["hv15-pod", "run", "/project/.snakemake/tmp/job.sh"]
    limits = {"memory": "48000M", "nvidia.com/gpu": 2}
    assert container.pop("resources") == {"requests": {**limits, "cpu": 8}, "limits": limits}
    assert job["spec"].pop("activeDeadlineSeconds") == 5400
    assert job == before


def test_a_job_without_a_gpu_asks_for_none() -> None:
    job: Any = manifest(TEMPLATE, "job.sh", Asked(1000, 1, 0, 10))
    assert job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"] == {"memory": "1000M"}


@pytest.mark.parametrize("text", ["", "kind: Job", "spec: {template: {spec: {containers: []}}}", "spec: [", "- 1"])
def test_another_file_is_no_template(text: str, tmp_path: Path) -> None:
    (tmp_path / "pod.yaml").write_text(text)
    with pytest.raises(UserError, match=r"pod\.yaml: not the template of a job"):
        manifest(tmp_path / "pod.yaml", "job.sh", ASKED)


def test_a_submitted_job_is_known_by_its_name(kubectl: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (kubectl / "answer").write_text("job.batch/hv15-x7k2p\n")
    numbers = ["--memory", "48000", "--cpus", "8", "--gpus", "2", "--minutes", "90"]
    assert pods.main(["submit", str(TEMPLATE), *numbers, "job.sh"]) == 0
    assert capsys.readouterr().out == "hv15-x7k2p\n"
    assert (kubectl / "words").read_text() == "create -f - -o name\n"
    assert json.loads((kubectl / "input").read_text()) == manifest(TEMPLATE, "job.sh", ASKED)


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (None, "running"),
        ([], "running"),
        ([{"type": "Suspended", "status": "True"}], "running"),
        ([{"type": "Complete", "status": "True"}], "success"),
        ([{"type": "Failed", "status": "False"}], "running"),
        ([{"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}], "failed"),
    ],
)
def test_what_the_answers_mean(
    conditions: list[dict[str, str]] | None, expected: str, kubectl: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (kubectl / "answer").write_text(json.dumps({"status": {} if conditions is None else {"conditions": conditions}}))
    assert pods.main(["status", "hv15-x7k2p"]) == 0
    assert capsys.readouterr().out == f"{expected}\n"


def test_a_job_that_is_gone_has_failed(kubectl: Path) -> None:
    assert pods.status("hv15-x7k2p") == "failed"


def test_a_refusal_is_passed_on(
    kubectl: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pods, "PAUSES_S", (0.0,))
    (kubectl / "refuse").touch()
    assert pods.main(["status", "hv15-x7k2p"]) == 2
    assert capsys.readouterr().err.count("kubectl get failed") == 2


def test_a_job_is_asked_for_again_if_kubernetes_did_not_answer(kubectl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Snakemake would end the run, and all of its jobs, after one question without an answer."""
    (kubectl / "answer").write_text("no JSON")
    waited = list[float]()

    def wait(seconds: float) -> None:
        waited.append(seconds)
        (kubectl / "answer").write_text("{}")

    monkeypatch.setattr(time, "sleep", wait)
    assert pods.status("hv15-x7k2p") == "running"
    assert waited == [pods.PAUSES_S[0]]


def test_jobs_are_deleted_without_waiting(kubectl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["hv15-pod-cancel", "hv15-a", "hv15-b"])
    assert pods.main_of_cancel() == 0
    assert (kubectl / "words").read_text() == "delete job --ignore-not-found --wait=false hv15-a hv15-b\n"


def test_a_request_to_stop_reaches_all_processes_of_a_pod(tmp_path: Path) -> None:
    """The shell of the script alone would end, and the command in it would not be told."""
    ready, told = tmp_path / "ready", tmp_path / "told"
    script = tmp_path / "job.sh"
    script.write_text(
        f"trap : TERM\n(trap 'touch {told}; exit 3' TERM; touch {ready}; while :; do sleep 0.05; done)\nexit $?\n"
    )
    code = f"import sys; from hv15.runs.pods import main; sys.exit(main(['run', {str(script)!r}]))"
    pod = subprocess.Popen([sys.executable, "-c", code])
    end = time.monotonic() + 60
    while not ready.exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    pod.send_signal(signal.SIGTERM)
    assert pod.wait(60) == 3
    assert told.exists()
