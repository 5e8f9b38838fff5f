"""`hv15 run`, `stop`, `status`: the workflow as one thing that is started, watched and stopped."""

from __future__ import annotations

import io
import shlex
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import replace
from pathlib import Path
from textwrap import indent

from hv15.commands.options.runs import Run, SampleNow, Status, Stop, Tui
from hv15.commands.targets import asked
from hv15.errors import UserError
from hv15.home import workflow_folder
from hv15.progress import clock
from hv15.records.failures import Failure
from hv15.records.fields import to_json
from hv15.records.found_runs import begun_experiments
from hv15.records.json_values import JsonObject, RecordError
from hv15.records.notices import NoticeDelivery, read_delivery
from hv15.records.paths import ProjectPaths
from hv15.runs import control
from hv15.runs.failures import explain_job
from hv15.runs.followed_file import last_objects
from hv15.runs.lock import holder
from hv15.runs.metrics import TrainingProgress, trainings_since
from hv15.runs.record import RunFolder, project_config
from hv15.runs.state import RunState, RunStatus, current
from hv15.runs.state import status as status_of
from hv15.terminal_text import clean, json_text, one_line

POLL_S = 0.3
MOST_TRAININGS = 8
"""The most trainings of a run that are listed."""
MOST_FORMER = 5
"""The most folders that are named."""
DRY_RUN = {"-n", "--dry-run", "--dryrun"}
"""Snakemake's options for a dry run."""


def run(options: Run) -> int:
    """Start the workflow, detached from this terminal.

    Raises:
        UserError: Snakemake's arguments ask for a dry run, or are given with `--dry-run`; or see `refuse_broken`.
    """
    folder, targets = asked(options.project, options.words, options.target, options.experiment)
    options = replace(options, project=folder, words=(), target=targets)
    root = project_config(options.project).parent
    if options.unlock:
        removed = control.unlock(options.project)
        print(f"{one_line(str(root))}: {'unlocked' if removed else 'nothing was locked'}")
        return 0
    if options.dry_run:
        if options.snakemake:
            raise UserError(
                f"--snakemake {shlex.join(options.snakemake)}: a dry run does not ask Snakemake",
                hint=f"leave it out; `{_shell_command('why', options.project)} --overrides JSON` tries other settings",
            )
        from hv15.commands.why import due_stages, in_words, note_on_step
        from hv15.project import Project

        project = Project(options.config, experiment=options.experiment)
        print("\n".join([*in_words(due_stages(project, options.target)), *note_on_step(project)]))
        return 0
    refuse_broken(options)
    from hv15.commands.notify import notices_of_run

    started = control.start(options.project, options.target, options.snakemake)
    for line in notices_of_run(started):
        print(line)
    if not options.follow:
        print(f"started {started.id}: it continues when this terminal is closed")
        print("  " + "    ".join(_shell_command(word, options.project) for word in ("status", "tui", "stop")))
        return 0
    return _follow(started)


def refuse_broken(options: Run) -> None:
    """Check the config and everything that it names before a process is started, as far as that is quick.

    Settings on Snakemake's own command line may correct the file, so with them its planning checks instead.

    Raises:
        UserError: the config is wrong, or a file, a dataset or a setting cannot be used; or Snakemake's words ask for a
            dry run, or Snakemake does not know them.
    """
    if DRY_RUN & set(options.snakemake):
        raise UserError(
            "--snakemake -n: a dry run is not recorded as a run",
            hint=f"`hv15 run {shlex.quote(str(options.project))} --dry-run` shows what would run, and why",
        )
    if options.snakemake:
        _refuse_unknown(options.snakemake)
    if overrides_settings(options.snakemake):
        return
    from hv15.plan.beforehand import remembered_checks
    from hv15.project import Project
    from hv15.project.remote import remote_items
    from hv15.workflow import asked_runs, make_demo_clips, said_of

    base = Project(options.config)
    if not all(each.is_here for each in remote_items(base)):
        return  # the run copies them first
    base.models.check()
    make_demo_clips(base)
    with remembered_checks(base) as passed:
        for project in asked_runs(base, options.target):
            with said_of(project.run):
                project.models.check()
                project.dataset.refuse_unusable()
                passed.refuse(project)
    base.save_caches()


def _refuse_unknown(words: Sequence[str]) -> None:
    """Let Snakemake's own parser read the words that follow `--snakemake`, as with the profile and after targets."""
    from snakemake.cli import get_argument_parser

    profile = workflow_folder() / "profiles" / "default" / "config.yaml"
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            get_argument_parser([str(profile)]).parse_args(["target", *words])
    except SystemExit as end:
        if not end.code:
            raise  # it printed its help or version, as asked
        raise UserError(
            f"--snakemake {shlex.join(words)}: {said.getvalue().rpartition(' error: ')[2].strip()}",
            hint="`snakemake --help` lists its options; all words after --snakemake are Snakemake's, unquoted",
        ) from end


def overrides_settings(words: Sequence[str]) -> bool:
    """Whether words for Snakemake say that settings have other values than in the config."""
    return any(word.startswith(("--config", "-C")) for word in words)


def _follow(run: RunFolder) -> int:
    """Print what the run prints until it ends; Ctrl-C ends the printing only."""
    try:
        with run.output.open("rb") as output:
            rest = b""  # of a line that is not complete yet
            while True:
                found = _status_of(run)
                *lines, rest = (rest + output.read()).split(b"\n")
                for line in lines if found.state.alive else [*lines, *filter(None, [rest])]:
                    print(clean(line), flush=True)
                if not found.state.alive:
                    break
                time.sleep(POLL_S)
    except KeyboardInterrupt:
        print(f"\nthe run continues; `{_shell_command('stop', run.root)}` stops it", file=sys.stderr)
        return 0
    _print(found)
    return 0 if found.state is RunState.FINISHED else 1


def stop(options: Stop) -> int:
    """Ask the run to save and stop, and wait until it has; with --now kill it."""
    root = project_config(options.project).parent
    before = control.stop(root, now=options.now)
    if before.state is RunState.STOPPING and not options.now:
        kill = _shell_command("stop", options.project, "--now")
        print(f"it was asked before and is still saving; `{kill}` kills it", file=sys.stderr)
    deadline = time.monotonic() + options.wait
    try:
        while (found := _status_of(before.run)).state.alive or control.orphans(root):
            if time.monotonic() > deadline:
                ask = _shell_command("status", options.project)
                print(f"still {found.state.value}: `{ask}` shows when it has ended", file=sys.stderr)
                return 1
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        print("not waiting any longer; the request stands", file=sys.stderr)
        return 1
    _print(found)
    return 0


def sample_now(options: SampleNow) -> int:
    """Ask the running training for samples."""
    previews = control.sample_now(project_config(options.project).parent, options.experiment)
    print(one_line(f"the training makes samples after this step: {previews}"))
    return 0


def status(options: Status) -> int:
    """Print what runs, or how the last run ended."""
    root = project_config(options.project).parent
    found = current(root)
    if options.experiment:
        from hv15.commands.experiment_status import print_experiment

        print_experiment(options, found)
        return 0
    left = control.orphans(root)
    if options.json:
        print(json_text(_as_json(root, found, [each.pid for each in left])))
        return 0
    if found is None:
        print(f"{one_line(str(root))}: no run yet; `{_shell_command('run', options.project)}` starts one")
        for line in (*_published(root), *_experiments(root, options.project), *_queued(root)):
            print(f"  {line}")
        return 0
    _print(found)
    _print_failures(root, found)
    for training in _trainings(root, found)[:MOST_TRAININGS]:
        of = f" of {training.total}" if training.total else ""
        loss = f", loss {training.loss:.4f}" if training.loss is not None else ""
        left_s = training.eta_s if found.state.alive else None
        name = f"{training.experiment}: " if training.experiment else ""
        print(f"  {name}training: step {training.step}{of}{loss}" + (f", {clock(left_s)} left" if left_s else ""))
    told = [one_line(each.in_full) for each in _notices(found.run)]
    for line in (*_published(root), *_experiments(root, options.project), *_queued(root), *told):
        print(f"  {line}")
    if left:
        pids = ", ".join(str(each.pid) for each in left)
        print(f"  left over: pid {pids}; `{_shell_command('stop', options.project)}` ends them")
    if control.is_locked_by_snakemake(root) and not found.state.alive:
        print(f"  Snakemake's lock was left behind; `{_shell_command('run', options.project)}` removes it")
    return 0


def _shell_command(command: str, project: Path, *words: str) -> str:
    """An hv15 command on a project, quoted for a shell."""
    return one_line(shlex.join(["hv15", command, str(project), *words]))


def _as_json(root: Path, found: RunStatus | None, left: list[int]) -> JsonObject:
    trainings = _trainings(root, found)
    return {
        "project": str(root),
        "running": found is not None and found.state.alive,
        "run": found.as_json() if found else None,
        "orphans": [*left],
        "training": to_json(trainings[0]) if trainings else None,
        "notices": [to_json(each) for each in _notices(found.run)] if found else [],
        "trainings": [to_json(each) for each in trainings],
        "experiments": {**(_made_experiments(root) or {})},
    }


def _experiments(root: Path, project: Path) -> list[str]:
    """Say how many experiments are made, and which folders of results belong to none.

    Args:
        project: as the user named it.
    """
    made = _made_experiments(root)
    if made is None:
        return []
    former = [str(each.results.relative_to(root)) for each in begun_experiments(root) if each.run not in made]
    count, due = f"{sum(made.values())} of {len(made)}", _shell_command("why", project, "experiments")
    lines = [f"experiments: {count} are made; `{due}` says what is due"] if made else []
    if former:
        more = f" and {len(former) - MOST_FORMER} more" if len(former) > MOST_FORMER else ""
        lines.append(
            f"of no experiment in the config: {', '.join(former[:MOST_FORMER])}{more}; delete them if you wish"
        )
    return [one_line(line) for line in lines]


def _made_experiments(root: Path) -> dict[str, bool] | None:
    """Return whether the LoRA of each experiment is published, by name; None if the config cannot be read."""
    from hv15.config.load import ConfigSource

    try:
        names = ConfigSource(ProjectPaths(root).config).experiments
    except UserError:
        return None
    return {name: ProjectPaths(root, name).lora.exists() for name in names}


def _published(root: Path) -> list[str]:
    """Say which step the published LoRA is from, if it is not the last one, and what the config asks for instead."""
    from hv15.config import load_config
    from hv15.project.checkpoints import earlier_step, published_step

    paths = ProjectPaths(root)
    if not paths.lora.exists():
        return []
    there = published_step(paths.lora)
    try:
        train = load_config(paths.config).train
        asked = earlier_step(train, train.publish_step)
    except UserError:
        asked = there
    if asked == there:
        return [] if there is None else [f"published: the LoRA after step {there:,}"]
    now, then = ("that after the last step" if each is None else f"that after step {each:,}" for each in (there, asked))
    return [f"published: the LoRA is {now}; a run publishes {then}"]


def _queued(root: Path) -> list[str]:
    """Say at which places of the queue the project waits."""
    from hv15.queue.queue_file import QueueFile

    try:
        queue = QueueFile().read()
    except UserError:  # which `hv15 queue` tells
        return []
    places = [str(queue.place(each)) for each in queue.waiting if each.root == root]
    return [f"in the queue: waits at place {', '.join(places)}; `hv15 queue` shows all"] if places else []


def _trainings(root: Path, found: RunStatus | None) -> list[TrainingProgress]:
    """The progress of this run's trainings, the last at work first; none of those that an earlier run left."""
    if found is None or found.started is None:
        return []
    own = trainings_since(root, found.started)
    return [*{(each.time, each.step): each for each in own}.values()]  # a copied training is known twice


def _notices(run: RunFolder) -> list[NoticeDelivery]:
    """What became of the last notice of a run, for each place."""
    last: dict[str, NoticeDelivery] = {}
    for content in last_objects(run.notices):
        with suppress(RecordError):
            found = read_delivery(content)
            last[found.to] = found
    return [*last.values()]


def _status_of(run: RunFolder) -> RunStatus:
    return status_of(run, holder(run.root))


def _print(found: RunStatus) -> None:
    jobs = f"{found.done} of {found.total} jobs" if found.total else "no jobs yet" if found.state.alive else ""
    cut = "cut short" if found.state in (RunState.STOPPING, RunState.STOPPED) else "failed"
    failed = f"{len(found.failed)} {cut}" if found.failed else ""
    end = found.ended if found.ended is not None else time.time()
    took = clock(max(0.0, end - found.started)) if found.started else ""
    reason = f" ({one_line(found.reason)})" if found.reason else ""
    facts = (f"{found.state.value}{reason}", ", ".join(each for each in (jobs, failed, took) if each))
    print(": ".join(filter(None, (one_line(found.run.id), *facts))))


def _print_failures(root: Path, found: RunStatus) -> None:
    """Print why jobs failed, and what to do."""
    causes = [] if found.failure is None else [("the plan", found.failure)]
    print_causes([*causes, *causes_of(root, found)])


def causes_of(root: Path, found: RunStatus) -> list[tuple[str, Failure]]:
    """Return the jobs of a run that failed, by name, and why."""
    return [(each.job.name, explain_job(root, each.job, each.failure)) for each in found.failed if not each.stopped]


def print_causes(causes: Iterable[tuple[str, Failure]]) -> None:
    """Print why jobs failed, and what to do."""
    for name, failure in causes:
        print(f"  {one_line(name)}: {indent(str(failure), '    ').strip()}")
        print(f"    what to do: {one_line(failure.cure)}")


def tui(options: Tui) -> int:
    """Open the dashboard.

    Raises:
        UserError: a package that it needs cannot be loaded.
    """
    try:
        from tui.launch import launch
    except ImportError as error:
        raise UserError(
            f"the dashboard cannot be loaded: {error}", hint="install hv15 with its dependencies"
        ) from error
    return launch(options.project, demo=options.demo, serve=options.serve, port=options.port)
