"""A SLURM cluster on this machine, for tests: two nodes with fake GPUs, whose daemons and files last as long as a test.

The GPUs are empty files on one node and device files on the other, and nothing computes on them. Nothing listens beyond
this machine, and what runs was started here and is ended by its process id.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scancel", "squeue", "scontrol")
PACKAGES = ("slurm-wlm", "munge")
GPUS = 2
"""Of each node."""
BOUND = "localhost"
"""The node on which SLURM tells each job which GPUs are its own (CUDA_VISIBLE_DEVICES)."""
COUNTING = socket.gethostname()
"""The node on which SLURM only counts GPUs, and takes CUDA_VISIBLE_DEVICES away."""
CPUS = 8
MEMORY_MB = 16_000
KILL_WAIT_S = 30
"""How long a job that has to end may take for it: SLURM's default."""
START_S = 60.0

CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
TaskPlugin=task/none
ProctrackType=proctrack/linuxproc
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
ReturnToService=2
KillWait={kill_wait}
MinJobAge=600
InactiveLimit=0
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory={memory} Gres=gpu:{gpus} State=UNKNOWN\n"


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What SLURM's commands need to find it. Snakemake's plugin drops the first variable before it calls `srun`."""
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": path}

    def run(self, *words: str) -> str:
        """Call one of SLURM's commands and return what it prints."""
        environment = {**os.environ, **self.environment}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def jobs(self, comment: str = "") -> dict[str, str]:
        """Number -> state of each job that waits, runs or ends, whose comment has these words.

        Snakemake's comment is the rule with its wildcards: `rule_train`.
        """
        lines = self.run("squeue", "--noheader", "--format=%i|%T|%k").splitlines()
        rows = [line.split("|") for line in lines]
        return {number: state for number, state, said in rows if comment in said}


def install() -> str:
    """Install SLURM if it is missing, on a Debian where this user may; return why it cannot be used, or ""."""
    if find_spec("snakemake_executor_plugin_slurm") is None:
        return "Snakemake's plugin for SLURM is not installed: pip install -e '.[slurm]'"
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if not missing:
        return "" if os.getuid() == 0 else "SLURM's daemons run as root here"
    if os.getuid() != 0 or shutil.which("apt-get") is None:
        return f"{', '.join(missing)}: not installed, and only root can install them, by apt-get"
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for words in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", *PACKAGES]):
        done = subprocess.run(["apt-get", *words], env=quiet, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return f"apt-get {words[0]} failed: {done.stderr.strip()[-300:]}"
    return ""


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Start a cluster of two nodes; skip the test where SLURM cannot be had."""
    if reason := install():
        pytest.skip(reason)
    found = Cluster(folder)
    names = (COUNTING, BOUND)  # two names that this machine resolves
    _write_files(folder, names)
    with ExitStack() as daemons:
        _start(daemons, folder, "munged", "--foreground", "--force", *_munge_options(folder))
        _wait(lambda: (folder / "munge.socket").exists(), folder)
        _start(daemons, folder, "slurmctld", "-D", "-f", str(folder / "slurm.conf"))
        for name in names:
            # A node is known by its host's name, so each daemon believes that it is on a host of its own.
            script = 'hostname "$1" && exec slurmd -D -f "$2"'
            _start(daemons, folder, "unshare", "--uts", "sh", "-c", script, "sh", name, str(folder / "slurm.conf"))
        _wait(lambda: _idle(found) == len(names), folder)
        yield found


def _write_files(folder: Path, names: tuple[str, ...]) -> None:
    ports = _free_ports(1 + len(names))
    host = names[0]
    nodes = "".join(
        NODE.format(name=name, port=port, cpus=CPUS, memory=MEMORY_MB, gpus=GPUS)
        for name, port in zip(names, ports[1:], strict=True)
    )
    conf = CONF.format(host=host, controller_port=ports[0], folder=folder, kill_wait=KILL_WAIT_S, nodes=nodes)
    (folder / "slurm.conf").write_text(conf)
    (folder / "cgroup.conf").write_text("")
    gres = ""
    for name in names:
        (folder / name).mkdir()
        for number in range(GPUS):
            _make_gpu(folder / name / f"gpu{number}", bound=name == BOUND)
        gres += f"NodeName={name} Name=gpu File={folder}/{name}/gpu[0-{GPUS - 1}]\n"
    (folder / "gres.conf").write_text(gres)
    (folder / "state").mkdir()
    (folder / "bin").mkdir()
    program = folder / "bin" / "srun"
    program.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun")} "$@"\n')
    program.chmod(0o755)
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))


def _make_gpu(path: Path, *, bound: bool) -> None:
    if bound:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))  # as /dev/null
    else:
        path.touch()


def _munge_options(folder: Path) -> list[str]:
    files = {
        "key": "munge.key",
        "socket": "munge.socket",
        "pid": "munged.pid",
        "log": "munged.log",
        "seed": "munge.seed",
    }
    return [
        f"--{option}-file={folder / name}" if option != "socket" else f"--socket={folder / name}"
        for option, name in files.items()
    ]


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        found = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in found:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in found]


def _start(daemons: ExitStack, folder: Path, *words: str) -> None:
    """Start a daemon that is ended, and waited for, with the block."""
    with (folder / "daemons.log").open("ab") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
    daemons.callback(_end, process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _idle(found: Cluster) -> int:
    """How many nodes can take jobs."""
    try:
        lines = found.run("sinfo", "--noheader", "-N", "--format=%N %t").splitlines()
    except AssertionError:  # the controller is not up yet
        return 0
    return sum(line.split()[1:] == ["idle"] for line in lines)


def _wait(ready: Callable[[], bool], folder: Path) -> None:
    end = time.monotonic() + START_S
    while not ready():
        logs = [path.read_text(errors="replace")[-2000:] for path in folder.glob("*.log")]
        assert time.monotonic() < end, "\n".join(logs)
        time.sleep(0.1)
