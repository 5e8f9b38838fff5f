"""Several machines for one training: nodes of a SLURM job, or machines on which a person starts the same command.

On each machine one process starts the ranks of its GPUs (`hv15.ranks`). Within a SLURM job, the first one starts the
others with `srun`. Elsewhere each is started by hand, with the variables of `BY_HAND`. Loads no torch.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass

from hv15.errors import UserError
from hv15.gpus import SLURM_JOB

NODE_RANK, MASTER_ADDR, MASTER_PORT = BY_HAND = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
"""The machine's number from 0; the address of machine 0 and a free port there. The last two are torch's variables."""
_FIRST_PORT, _PORTS = 20_000, 20_000
_NODES, _STEP = "SLURM_JOB_NUM_NODES", "SLURM_STEP_ID"
_OF_THE_JOB = (SLURM_JOB, "SLURM_JOBID", "SLURM_CLUSTER_NAME", "SLURM_CONF")
"""Variables of SLURM that say which job this is."""


@dataclass(frozen=True)
class Machine:
    """This machine's place among those that train together."""

    number: int
    """From 0."""
    address: str
    """Of machine 0."""
    port: int


def this_machine(count: int) -> Machine | None:
    """Return this machine's place among `count` machines; None if `on_every_node` has to start the command first.

    Raises:
        UserError: the job has fewer nodes, or nothing says where the other machines are.
    """
    given = [os.environ.get(name, "") for name in BY_HAND]
    if all(given):
        return _by_hand(count, *given)
    if SLURM_JOB not in os.environ:
        raise UserError(
            f"train.num_machines is {count}, but this is not a SLURM job, and {', '.join(BY_HAND)} are not set",
            hint=f"submit the job with --nodes {count}, or start the command on each machine with these variables; "
            "for this machine alone set train.num_machines to 1",
        )
    if os.environ.get("SLURM_STEP_NUM_TASKS") == os.environ.get("SLURM_STEP_NUM_NODES") == str(count):
        first = first_node(os.environ.get("SLURM_STEP_NODELIST", ""))
        number = os.environ.get("SLURM_NODEID", "")
        if first and number.isdecimal():
            return Machine(int(number), first, _FIRST_PORT + int(os.environ[SLURM_JOB]) % _PORTS)
    nodes = os.environ.get(_NODES, "1")
    is_known = _NODES in os.environ or _STEP not in os.environ  # a step may know of its own nodes alone; srun knows all
    if is_known and (not nodes.isdecimal() or int(nodes) < count):
        raise UserError(
            f"train.num_machines is {count}, but this SLURM job has {nodes} nodes",
            hint=f"submit it with --nodes {count}",
        )
    return None


def on_every_node(count: int, command: list[str]) -> list[str]:
    """Return the command that starts another one once on each of `count` nodes of this SLURM job.

    Raises:
        UserError: there is no `srun`.
    """
    if (srun := shutil.which("srun")) is None:
        raise UserError(
            "srun, which starts the training on the other nodes, is not on the PATH",
            hint="load the module of SLURM, or start the command on each machine by hand",
        )
    # --overlap: also from within a job step, which holds the job's resources.
    options = ("--overlap", "--nodes", str(count), "--ntasks", str(count), "--ntasks-per-node", "1")
    return [srun, *options, *command]


def outside_a_step() -> dict[str, str]:
    """Return this process's environment without what SLURM says of the step that it is in.

    `srun` reads that as its own options: within a step of one node, it would start the command on that node alone.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if name in _OF_THE_JOB or not name.startswith(("SLURM_", "SRUN_"))
    }


def first_node(nodes: str) -> str:
    """Return the first name of a list as SLURM writes it: "gpu[07-09,12],big1" -> "gpu07"; "" if there is none."""
    found = re.match(r"(?P<name>[\w.-]+)(?:\[(?P<number>\d+)[^\]]*\](?P<rest>[\w.-]*))?", nodes)
    return "".join(part or "" for part in found.group("name", "number", "rest")) if found else ""


def _by_hand(count: int, number: str, address: str, port: str) -> Machine:
    if not number.isdecimal() or int(number) >= count or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise UserError(
            f"{NODE_RANK} is {number!r:.40} and {MASTER_PORT} is {port!r:.40}; expected a number from 0 to "
            f"{count - 1}, and a port",
            hint=f"{NODE_RANK} is the machine's number, {MASTER_PORT} a free port of machine 0",
        )
    return Machine(int(number), address, int(port))
