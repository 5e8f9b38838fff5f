"""Start a run that outlives its starter, stop it as Ctrl-C would, kill it, and clean up after one that died."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from hv15.atomic import write_text
from hv15.config.yaml_file import read_yaml
from hv15.environment import RUN_VARIABLE, RUN_VARIABLES, SAFE_PATH
from hv15.errors import UserError
from hv15.home import workflow_folder
from hv15.records.found_runs import trained_experiments
from hv15.records.paths import CONFIG, ProjectPaths
from hv15.records.problems import ConfigError
from hv15.records.rules import TargetRule
from hv15.runs import lock
from hv15.runs.followed_file import append_object
from hv15.runs.metrics import last_start, training_progress
from hv15.runs.processes import catches, in_words, interrupt, kill, left_behind, run_processes, send
from hv15.runs.record import RunFolder, history, new_run, project_config
from hv15.runs.state import RunStatus, close_last_run, current
from hv15.terminal_text import one_line

TARGET = str(ProjectPaths().lora)
"""What a run makes unless something else is asked for: the LoRA with all that belongs to it."""
SINGLE = (sys.executable, "-P", "-m", "hv15.runs.single")
"""The program that runs one command as a run."""
RECENT_RUNS = 20
"""How many of the last runs are searched for processes."""


def snakefile(root: Path) -> Path:
    """Return the project's own Snakefile, or else hv15's.

    Raises:
        UserError: hv15's is missing from its installation.
    """
    own = root / "Snakefile"
    return own if own.is_file() else workflow_folder() / "Snakefile"


def default_target(config: Path) -> str:
    """Return what a run of a project makes unless something else is asked for."""
    try:
        return TARGET if read_yaml(config).data.get("datasets") else TargetRule.SAMPLES
    except ConfigError:  # which the run reports
        return TARGET


def command(config: Path, *words: str) -> list[str]:
    """Return Snakemake's command line for a project. It has to be run in the folder of the Snakefile."""
    base = [sys.executable, "-P", "-m", "snakemake", *words, "-d", str(config.parent)]
    return base if config.name == CONFIG else [*base, "--configfile", str(config)]


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a Snakemake process, in which this interpreter's own `hv15` is found first.

    Python files in its working folder are not found: an `argparse.py` among somebody's clips is never run.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    kept = {name: value for name, value in os.environ.items() if name not in RUN_VARIABLES}
    return {**kept, "PATH": path, "PYTHONUNBUFFERED": "1", SAFE_PATH: "1", **more}


def start(project: Path, targets: Sequence[str] = (), extra: Sequence[str] = ()) -> RunFolder:
    """Start Snakemake on a project, detached: it continues when this process and its terminal are gone.

    Args:
        project: the project folder or its config file.
        targets: what to make; by default everything that the config asks for.
        extra: further words for Snakemake.

    Raises:
        UserError: no project, a run is in progress, processes of a dead run are left, or the disk cannot be written.
    """
    config = project_config(project)
    home, asked = snakefile(config.parent).parent, targets or [default_target(config)]

    def unlocked() -> None:
        if is_locked_by_snakemake(config.parent):
            unlock_snakemake(config, home)

    return _start(config, command(config, *asked, *extra), home, asked, prepare=unlocked)


def start_command(project: Path, title: str, words: Sequence[str]) -> RunFolder:
    """Start one hv15 command in a project's folder as a run of its own, detached, stopped and watched like any other.

    Args:
        title: what it is about, for a person: its name as a job is the command's with this.
        words: the command with its arguments, such as `sample`, `a red circle`.

    Raises:
        UserError: as `start`.
    """
    config = project_config(project)
    return _start(config, [*SINGLE, title, *words], config.parent, [title])


def _start(
    config: Path, words: Sequence[str], folder: Path, targets: Sequence[str], prepare: Callable[[], None] | None = None
) -> RunFolder:
    """Start a program that records a run; `prepare` is called when the run has the project for itself.

    Raises:
        UserError: as `start`.
    """
    root = config.parent
    refuse_orphans(root)
    run, descriptor = new_locked_run(root)
    try:
        close_last_run(root)
        run.create(config)
        if prepare is not None:
            prepare()
        with run.output.open("wb") as output:
            process = subprocess.Popen(
                words,
                cwd=folder,
                env=environment(**{RUN_VARIABLE: run.id}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[descriptor],
            )
        try:
            run.write_record(process.pid, words, targets)
        except BaseException:  # without a record, nobody could find the run and stop it
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    except OSError as error:
        hint = "free some disk space, or end other programs"
        raise UserError.at(root, f"the run could not be started: {error.strerror or error}", hint=hint) from error
    finally:
        os.close(descriptor)
    return run


def new_locked_run(root: Path) -> tuple[RunFolder, int]:
    """Return a new run that holds the project's lock, and the lock's file descriptor.

    Raises:
        UserError: another run is in progress.
    """
    run = new_run(root)
    descriptor = lock.take(root, run.id)
    if descriptor is None:
        other = current(root)
        since = time.strftime("%H:%M:%S", time.localtime(other.started)) if other and other.started else "a while ago"
        where = f", pid {other.record.pid} on {other.record.host}" if other and other.record else ""
        name = shlex.quote(str(root))
        raise UserError.at(
            root,
            f"a run is already in progress (since {since}{where})",
            hint=f"watch it with `hv15 tui {name}`, or stop it with `hv15 stop {name}`",
        )
    return run, descriptor


def stop(root: Path, *, now: bool = False) -> RunStatus:
    """Ask the live run to stop (training saves its state first), or kill it; also processes that dead runs left.

    Returns the status from before. A request to stop returns at once, a kill when all processes have ended.

    Raises:
        UserError: nothing runs, or it runs on another machine.
    """
    found = current(root)
    left = orphans(root)
    if found is None or not (found.state.alive or left):
        raise UserError.at(root, "no run is in progress", hint="`hv15 status` shows how the last one ended")
    record = found.record
    if record is None and found.state.alive:
        raise UserError.at(root, "a run is in progress, but has not recorded its process yet", hint="wait a moment")
    own = run_processes(record) if record is not None else []
    earlier = [each for each in left if each not in own]
    if record is not None and not own and not earlier:
        there = shlex.join(["hv15", "stop", str(root.absolute())])
        raise UserError.at(
            root,
            f"the run is on {record.host}, which cannot be reached from here",
            hint=f"stop it there: {shlex.join(['ssh', record.host, there])}",
        )
    if found.state.alive:
        with contextlib.suppress(OSError):  # a full disk must not keep it running
            append_object(found.run.stop, {"time": time.time(), "now": now})
    send(earlier, signal.SIGKILL if now else signal.SIGINT)
    if record is not None and now:
        kill(record)
    elif record is not None:
        interrupt(record, own)
    return found


def end_orphans(root: Path, *, now: bool = False) -> None:
    """Ask the processes of dead runs to end (a training saves its state first), or kill them; a live run is spared."""
    send(orphans(root), signal.SIGKILL if now else signal.SIGINT)


def save_now(root: Path) -> int:
    """Ask the running training to save its state and continue; return how many processes were asked.

    Raises:
        UserError: no training runs here, or it is not in its steps yet.
    """
    found = current(root)
    record = found.record if found and found.state.alive else None
    # Only a training handles this signal; it would end any other process.
    training = [each for each in run_processes(record) if catches(each, signal.SIGUSR1)] if record else []
    send(training, signal.SIGUSR1)
    if not training:
        raise UserError.at(root, "no training is in its steps now", hint="wait until its first step is done")
    return len(training)


def sample_now(root: Path, experiment: str = "") -> Path:
    """Ask the running training for samples after its current step, and return the folder that they come to, within the
    project's.

    Args:
        experiment: whose training; "": that which runs.

    Raises:
        UserError: no training runs here, it has done its last step or has no prompts, or the file that asks for it
            cannot be written.
    """
    paths = ProjectPaths(root, experiment) if experiment else _training_now(root)
    found = current(root)
    record = found.record if found and found.state.alive else None
    at_work = record is not None and lock.is_held(paths.training_lock)
    if record is None or not (at_work and _is_written_since(paths.metrics, record.started)):  # of an earlier training?
        raise UserError.at(root, "no training is in its steps now", hint="wait until its first step is done")
    start, progress = last_start(paths.metrics), training_progress(paths)
    if start is not None and start.samples_on_request is False:
        raise UserError.at(
            root,
            "the training was started without prompts, so it can make no samples",
            hint="add prompts to sample.prompts, stop the run and start it again: the training goes on where it was",
        )
    if progress is not None and 0 < progress.total <= progress.step:
        raise UserError.at(
            root, "the training has done its last step", hint="the samples of the finished LoRA come next in this run"
        )
    write_text(paths.sample_now, "")
    return ProjectPaths(run=paths.run).previews


def _training_now(root: Path) -> ProjectPaths:
    """The files of the training that is at work: of the base config unless only an experiment's is."""
    base = ProjectPaths(root)
    return next((each for each in (base, *trained_experiments(root)) if lock.is_held(each.training_lock)), base)


def _is_written_since(file: Path, seconds: float) -> bool:
    try:
        return file.stat().st_mtime >= seconds
    except OSError:
        return False


def orphans(root: Path) -> list[psutil.Process]:
    """Return processes that a dead run of this project left behind on this machine; they hold memory and the GPU."""
    running = lock.holder(root)
    records = [run.record() for run in history(root)[:RECENT_RUNS] if run.id != running]
    return left_behind(record for record in records if record is not None)


def refuse_living_run(root: Path) -> None:
    """Raise a UserError if another run works here: its jobs read the specs that this one would write."""
    other = lock.holder(root)
    if other is not None and other != os.environ.get(RUN_VARIABLE):
        raise UserError.at(
            root,
            f"a run is already in progress ({other})",
            hint=f"`hv15 status` shows it; stop it with `hv15 stop {shlex.quote(str(root))}`, or wait for its end",
        )


def refuse_orphans(root: Path) -> None:
    """Raise a UserError if processes of a dead run are left: they would work on the same files."""
    if lock.holder(root) is None and (left := orphans(root)):
        raise UserError.at(
            root,
            f"an earlier run was killed, but some of its processes still work here: {in_words(left)}",
            hint=f"end them with `hv15 stop {shlex.quote(str(root))}`; a training saves its state first",
        )


def is_locked_by_snakemake(root: Path) -> bool:
    """Whether Snakemake's own lock is there: it stays when a run is killed."""
    try:
        return any(os.scandir(root / ".snakemake" / "locks"))
    except OSError:
        return False


def note_on_lock(root: Path) -> str:
    """Say how to remove the lock that a killed run left, which makes Snakemake refuse; "" if there is none."""
    if not is_locked_by_snakemake(root) or lock.holder(root) is not None:
        return ""
    run = f"hv15 run {shlex.quote(one_line(str(root)))}"
    return f"a run that was killed left Snakemake's lock: `{run}` removes it and starts a new one"


def unlock(project: Path) -> bool:
    """Remove the lock that a killed Snakemake left; False when there was none.

    Raises:
        UserError: a run is in progress, or Snakemake could not do it.
    """
    config = project_config(project)
    if not is_locked_by_snakemake(config.parent):
        return False
    refuse_orphans(config.parent)
    _, descriptor = new_locked_run(config.parent)
    try:
        unlock_snakemake(config, snakefile(config.parent).parent)
    finally:
        os.close(descriptor)
    return True


def unlock_snakemake(config: Path, home: Path) -> None:
    """Run `snakemake --unlock`. Call it only while holding the project's own lock, so that no run needs Snakemake's.

    Raises:
        UserError: Snakemake refuses, with its message.
    """
    done = subprocess.run(
        command(config, "--unlock"),
        cwd=home,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise UserError.at(config.parent, "cannot be unlocked:", lines=said, hint="put right what it says")
