"""The profile of Kubernetes, with a stand-in for `kubectl` that runs the pods' commands on this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.workflow.project import REPOSITORY
from tests.workflow.quick import QuickProject

pytestmark = pytest.mark.slow
pytest.importorskip("snakemake_executor_plugin_cluster_generic", reason="needs pip install 'hv15[kubernetes]'")

KUBECTL = """\
#!{python}
# Keeps a folder for each job: its manifest, and its pod's exit code when that has ended.
import json, os, subprocess, sys
from pathlib import Path
words, root = sys.argv[1:], Path({root!r})
if words[0] == "create":
    name = f"hv15-{{len(list(root.glob('hv15-*')))}}"
    (root / name).mkdir()
    job = json.load(sys.stdin)
    (root / name / "job.json").write_text(json.dumps(job))
    command = job["spec"]["template"]["spec"]["containers"][0]["command"]
    pod = 'code=0; "$@" || code=$?; echo $code > "$0/code"'
    with open(root / name / "log", "wb") as log:
        words = ["sh", "-c", pod, str(root / name), *command]
        subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    print(f"job.batch/{{name}}")
elif words[0] == "get":
    code = root / words[2] / "code"
    ended = code.read_text().strip() if code.exists() else ""
    kind = "Complete" if ended == "0" else "Failed"
    print(json.dumps({{"status": {{"conditions": [{{"type": kind, "status": "True"}}] if ended else []}}}}))
"""


def test_jobs_become_pods_that_ask_for_what_is_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs, cluster = tmp_path / "programs", tmp_path / "cluster"
    programs.mkdir()
    cluster.mkdir()
    entry = f"#!{sys.executable}\nimport sys\nfrom hv15.runs.pods import main\nsys.exit(main())\n"
    for name, text in (("kubectl", KUBECTL.format(python=sys.executable, root=str(cluster))), ("hv15-pod", entry)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{Path(sys.executable).parent}:/usr/bin:/bin")
    project = QuickProject.make(tmp_path / "project")
    project.set(runtime={"planned_gpu": "4090", "resources": {"encode_latents": {"runtime": 77}}})
    (project.root / "pod.yaml").write_text((REPOSITORY / "profiles/kubernetes/pod.yaml").read_text())
    options = ("--workflow-profile", "profiles/kubernetes", "--seconds-between-status-checks", "1")
    outcome = project.snakemake(*options, "--latency-wait", "5", "--until", "encode_latents")
    assert outcome.code == 0, outcome.output
    assert outcome.jobs["encode latents"] == 2
    jobs: list[Any] = [json.loads(path.read_text()) for path in cluster.glob("*/job.json")]
    assert len(jobs) == 2
    for job in jobs:
        limits = job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert limits["nvidia.com/gpu"] == 1
        assert int(limits["memory"].removesuffix("M")) > 5000, "that of a process with a GPU"
        assert job["spec"]["activeDeadlineSeconds"] == 77 * 60
