"""Several machines: their places by SLURM's variables or by hand; the first one starts the others by `srun`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hv15.errors import UserError
from hv15.machines import Machine, first_node, on_every_node, outside_a_step, this_machine

VARIABLES = [
    "NODE_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
    "SLURM_JOB_ID",
    "SLURM_JOB_NUM_NODES",
    "SLURM_NODEID",
    "SLURM_STEP_ID",
    "SLURM_STEP_NODELIST",
    "SLURM_STEP_NUM_NODES",
    "SLURM_STEP_NUM_TASKS",
]
STEP = {
    "SLURM_JOB_ID": "123456",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NODELIST": "gpu[07,09]",
    "SLURM_NODEID": "1",
}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def having(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu1", "gpu1"),
        ("gpu1,gpu2", "gpu1"),
        ("gpu[07-09,12],big1", "gpu07"),
        ("rack-a.site[3,5]-ib", "rack-a.site3-ib"),
        ("", ""),
    ],
)
def test_the_first_of_slurms_list(nodes: str, first: str) -> None:
    assert first_node(nodes) == first


def test_a_task_of_a_step_knows_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    having(monkeypatch, **STEP)
    assert this_machine(2) == Machine(1, "gpu07", 20_000 + 123456 % 20_000)


def test_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    having(monkeypatch, NODE_RANK="1", MASTER_ADDR="10.0.0.7", MASTER_PORT="29500")
    assert this_machine(2) == Machine(1, "10.0.0.7", 29500)


def test_a_step_that_knows_only_its_own_node_lets_srun_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Snakemake's plugin runs a job in a step of one node, without what SLURM says of the whole job."""
    step = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NODEID": "0"}
    having(monkeypatch, SLURM_JOB_ID="7", SLURM_STEP_NODELIST="gpu07", SLURM_JOB_NODELIST="gpu07", **step)
    assert this_machine(2) is None
    found = outside_a_step()
    assert {name for name in found if name.startswith("SLURM")} == {"SLURM_JOB_ID"}
    assert found["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "this is not a SLURM job"),
        ({"SLURM_JOB_ID": "1"}, "this SLURM job has 1 nodes"),
        ({"SLURM_JOB_ID": "1", "SLURM_JOB_NUM_NODES": "1"}, "this SLURM job has 1 nodes"),
        ({"NODE_RANK": "2", "MASTER_ADDR": "a", "MASTER_PORT": "29500"}, "NODE_RANK is '2'"),
        ({"NODE_RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "99999"}, "MASTER_PORT is '99999'"),
    ],
)
def test_a_place_that_is_not_known_is_refused(
    values: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    having(monkeypatch, **values)
    with pytest.raises(UserError, match=message):
        this_machine(2)


def test_without_srun_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="srun"):
        on_every_node(2, ["hv15", "train"])


SRUN = """\
#!{python}
# Stands in for SLURM's: starts the command once a node, with the variables of each task.
import os, subprocess, sys
words = sys.argv[1:]
count = words[words.index("--ntasks") + 1]
command = words[words.index("--ntasks-per-node") + 2:]
step = dict(SLURM_STEP_NUM_NODES=count, SLURM_STEP_NUM_TASKS=count, SLURM_STEP_NODELIST="127.0.0.1")
tasks = [subprocess.Popen(command, env=dict(os.environ, SLURM_NODEID=str(n), **step)) for n in range(int(count))]
sys.exit(max(task.wait() for task in tasks))
"""

PROGRAM = """
import os, subprocess, sys
from hv15 import ranks
if "WORLD_SIZE" in os.environ:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR")
    os.write(1, ("rank " + " ".join(os.environ[name] for name in names) + "\\n").encode())
    sys.exit(0)
start, own = subprocess.Popen, [sys.executable, "-c", sys.argv[1], sys.argv[1]]
def started(command, **options):
    place = command.index(sys.executable)  # of hv15's own command
    return start([*command[:place], *own], **options)
subprocess.Popen = started
sys.exit(ranks.run_on_ranks(4, "cpu", "x is 4", machines=2))
"""


def test_the_first_machine_starts_the_others(tmp_path: Path) -> None:
    """Two "nodes" with two ranks each."""
    srun = tmp_path / "srun"
    srun.write_text(SRUN.format(python=sys.executable))
    srun.chmod(0o755)
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    unset = {name: value for name, value in os.environ.items() if name != "WORLD_SIZE"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, PROGRAM], env=unset | job, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    expected = [f"rank {rank} {rank % 2} 4 127.0.0.1" for rank in range(4)]
    assert sorted(done.stdout.splitlines()) == expected
