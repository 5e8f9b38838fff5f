"""Jobs of the workflow as jobs of Kubernetes: Snakemake's executor `cluster-generic` calls this, this calls `kubectl`.

    hv15-pod submit TEMPLATE --memory MB --cpus N --gpus N --minutes N SCRIPT     prints the job's name
    hv15-pod status NAME                                                          prints running, success or failed
    hv15-pod-cancel NAME ...
    hv15-pod run SCRIPT                                                           within the pod

The template (profiles/kubernetes/pod.yaml) says everything that depends on the cluster. Snakemake's own plugin for
Kubernetes does not fit: it gives each job an empty folder and copies declared files to and fro, while the jobs here
share a folder with the store of encoded items and the states of a training. Loads no torch.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import yaml

from hv15.errors import UserError
from hv15.records.json_values import Json, JsonObject, RecordError, as_object, parse_object

GPU = "nvidia.com/gpu"
PROGRAM = "hv15-pod"
PAUSES_S = (5.0, 15.0, 30.0, 60.0, 120.0)
"""Before each further question for a job that Kubernetes does not answer."""
CHECK = "check with `kubectl get jobs`"


@dataclass(frozen=True)
class Asked:
    """What a job asks for."""

    memory_mb: int
    cpus: int
    gpus: int
    minutes: int


def manifest(template: Path, script: str, asked: Asked) -> JsonObject:
    """Return the job that Kubernetes is to run: the template with the command and what it asks for.

    Raises:
        UserError: the template cannot be read, or is not that of a job with one container.
    """
    try:
        job = as_object(yaml.safe_load(template.read_text(encoding="utf-8")))
        spec = as_object(job["spec"])
        pod = as_object(as_object(spec["template"])["spec"])
        container = as_object(_listed(pod["containers"])[0])
    except (OSError, yaml.YAMLError, RecordError, KeyError, IndexError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else getattr(error, "strerror", None) or str(error)
        hint = "start from profiles/kubernetes/pod.yaml"
        raise UserError.at(template, f"not the template of a job: {why}", hint=hint) from None
    limits: JsonObject = {"memory": f"{asked.memory_mb}M"}
    if asked.gpus:
        limits[GPU] = asked.gpus
    container["command"] = [PROGRAM, "run", script]
    container["resources"] = {"requests": {**limits, "cpu": asked.cpus}, "limits": limits}
    spec["activeDeadlineSeconds"] = asked.minutes * 60
    return job


def submit(template: Path, script: str, asked: Asked) -> str:
    """Create a job and return its name.

    Raises:
        UserError: the template cannot be used, or Kubernetes refuses the job.
    """
    made = _kubectl("create", "-f", "-", "-o", "name", text=json.dumps(manifest(template, script, asked)))
    return made.strip().rpartition("/")[2]


def status(name: str) -> str:
    """Return how a job is, in a word that Snakemake knows. One that is gone has failed.

    Snakemake ends a run whose jobs it cannot ask for, so it is asked again if Kubernetes does not answer for a while.

    Raises:
        UserError: Kubernetes does not answer.
    """
    for pause in PAUSES_S:
        try:
            return _status(name)
        except UserError as error:
            print(f"{error.message}; asks again in {pause:.0f} s", file=sys.stderr)
            time.sleep(pause)
    return _status(name)


def _status(name: str) -> str:
    found = _kubectl("get", "job", name, "--ignore-not-found", "-o", "json")
    if not found.strip():
        return "failed"
    try:
        conditions = _listed(as_object(parse_object(found).get("status") or {}).get("conditions") or [])
    except RecordError as error:
        raise UserError(f"kubectl get: not the answer that was expected: {error}", hint=CHECK) from None
    ended = {each["type"] for each in map(as_object, conditions) if each.get("status") == "True"}
    return "success" if "Complete" in ended else "failed" if "Failed" in ended else "running"


def _listed(value: Json) -> list[Json]:
    if not isinstance(value, list):
        raise RecordError(f"expected a list, found {value!r:.60}")
    return value


def cancel(names: Sequence[str]) -> None:
    """Delete jobs; their pods are asked to stop, and a training saves its state.

    Raises:
        UserError: Kubernetes does not answer.
    """
    _kubectl("delete", "job", "--ignore-not-found", "--wait=false", *names)


def run(script: str) -> int:
    """Run a job's script in the pod, and return its exit code.

    Kubernetes asks only the first process of a pod to stop, so that passes it on to all.
    """
    process = subprocess.Popen(["/bin/sh", script], start_new_session=True)

    def passed_on(number: int, frame: FrameType | None) -> None:
        os.killpg(process.pid, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, passed_on)
    code = process.wait()
    return code if code >= 0 else 128 - code


def _kubectl(*words: str, text: str | None = None) -> str:
    """Call `kubectl` and return what it prints.

    Raises:
        UserError: there is none, or it fails.
    """
    program = shutil.which("kubectl")
    if program is None:
        raise UserError("kubectl is not on the PATH", hint=f"install it, and {CHECK}")
    done = subprocess.run([program, *words], input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UserError(f"kubectl {words[0]} failed: {done.stderr.strip()}", hint=CHECK)
    return done.stdout


def main(words: Sequence[str] | None = None) -> int:
    """Run one of the commands; return its exit code."""
    parser = argparse.ArgumentParser(PROGRAM, description="Jobs of the workflow on Kubernetes.")
    commands = parser.add_subparsers(dest="command", required=True)
    submitting = commands.add_parser("submit")
    submitting.add_argument("template", type=Path)
    for name in ("memory", "cpus", "gpus", "minutes"):
        submitting.add_argument(f"--{name}", type=int, required=True)
    submitting.add_argument("script")
    commands.add_parser("status").add_argument("name")
    commands.add_parser("run").add_argument("script")
    given = parser.parse_args(words)
    try:
        match given.command:
            case "submit":
                asked = Asked(given.memory, given.cpus, given.gpus, given.minutes)
                print(submit(given.template, given.script, asked))
            case "status":
                print(status(given.name))
            case "run":
                return run(given.script)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def main_of_cancel() -> int:
    """Delete the jobs that the command line names. (Snakemake calls a program without a command's word.)"""
    try:
        cancel(sys.argv[1:])
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0
