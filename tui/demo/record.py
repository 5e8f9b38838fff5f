"""Make the recording from a project folder whose last run has finished:  python -m tui.demo.record PROJECT

It holds what the dashboard shows: the config, the clips, runs with their events, metrics, logs, samples; no models,
encoded items or LoRAs. `timeline.json` says when each file appeared or grew.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import hv15
from hv15.records.events import JobDone, JobFailed, JobStarted
from hv15.records.fields import to_json
from hv15.records.outputs import VIDEO
from hv15.records.paths import ProjectPaths
from hv15.runs.record import RunFolder, history
from hv15.runs.state import all_events
from tui.demo.timeline import FILE, RECORDING, RecordedFile, RunTimeline, recorded_name

CLIPS = ("demo/clips/*", "demo/usual/*", "demo/unseen/*", "demo/*.png")
STAMP = re.compile(r"\[(\w{3} \w{3} +\d+ \d\d:\d\d:\d\d \d{4})\]")
LONG = re.compile(r"(?<=[\[ ])-?\d{1,4}\.\d{5,}")
MACHINE = re.compile(r"^  (Platform|Host|User|Python version|Command|Base directory): .*\n", re.MULTILINE)
HOST = "demo"


def record(root: Path, target: Path = RECORDING) -> None:
    """Write the recording of a project's last run."""
    last, *earlier = history(root)
    run = last.read_record()
    shutil.rmtree(target, ignore_errors=True)
    for path in _before(root, earlier):
        if path.is_file():
            _copy(root, path, target / "project")
    files = []
    for path in sorted(_during(root, last)):
        if path.is_file():
            files.append(_recorded(root, path, _copy(root, path, target / "run"), run.started, last))
    timeline = RunTimeline(
        run=last.id,
        start=run.started,
        seconds=round(all_events(last.events)[-1].time - run.started, 3),
        files=tuple(sorted(files, key=lambda file: (file.begin, file.path))),
    )
    (target / FILE).write_text(json.dumps(to_json(timeline), indent=1) + "\n", encoding="utf-8")


def _before(root: Path, earlier: list[RunFolder]) -> Iterator[Path]:
    """The files from before the run started, including its history."""
    paths = ProjectPaths(root)
    yield paths.config
    for pattern in CLIPS:
        yield from sorted(root.glob(pattern))
    yield from paths.set_aside()
    for run in earlier:
        yield from (run.events, run.output, run.config, run.record_file, run.stop)


def _during(root: Path, last: RunFolder) -> set[Path]:
    """The files that the run has written."""
    paths = ProjectPaths(root)
    samples = paths.samples.glob(VIDEO.path(paths, "*").name)
    texts = paths.results.glob("**/*.txt")
    own = (last.events, last.output, last.config, last.record_file)
    return {*own, *paths.all_logs(), paths.metrics, paths.summary, *samples, *paths.previews.glob("*"), *texts}


def _recorded(root: Path, path: Path, copy: Path, start: float, last: RunFolder) -> RecordedFile:
    name = path.relative_to(root).as_posix()
    if path in (last.record_file, last.config):
        return RecordedFile(name, 0.0)
    if path.suffix == ".jsonl":
        return RecordedFile(name, 0.0, tells_times=True)
    if path == last.output:
        return RecordedFile(name, 0.0, line_times=tuple(_stamps(copy, start)))
    if path.suffix == ".log":
        return RecordedFile(name, *_of_job(last, name, start))
    return RecordedFile(name, round(max(0.0, path.stat().st_mtime - start), 2))


def _stamps(path: Path, start: float) -> list[float]:
    """The time of each line of Snakemake's output, from the stamps in it."""
    times, now = [], 0.0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if found := STAMP.match(line):
            now = max(now, time.mktime(time.strptime(found[1])) - start)
        times.append(round(now, 1))
    return times


def _of_job(run: RunFolder, log: str, start: float) -> tuple[float, float]:
    """Start and end of the job that wrote a log; both 0 if it was not one of this run's."""
    job, begun = None, 0.0
    for event in all_events(run.events):
        if isinstance(event, JobStarted) and log in event.job.log:
            job, begun = event.job.id, event.time - start
        number = event.id if isinstance(event, JobDone) else event.job.id if isinstance(event, JobFailed) else None
        if job is not None and number == job:
            return round(begun, 2), round(event.time - start, 2)
    return round(begun, 2), round(begun, 2)


def _copy(root: Path, path: Path, target: Path) -> Path:
    """Copy a file; in text, leave out what names the machine and shorten long numbers."""
    copy = target / recorded_name(path.relative_to(root).as_posix())
    copy.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".mp4", ".png"):
        copy.write_bytes(path.read_bytes())
        return copy
    text = path.read_text(encoding="utf-8", errors="replace")
    run = RunFolder(root, path.parent.name)
    if path == run.record_file:
        found = run.read_record()
        words = found.command[found.command.index("snakemake") :]
        text = json.dumps(to_json(replace(found, command=words, host=HOST)), indent=1) + "\n"
    elif path.name == ProjectPaths().metrics.name:
        text = LONG.sub(lambda found: f"{float(found[0]):.5g}", text)
    elif path == run.output:
        text = MACHINE.sub("", text)
    for folder, name in ((str(root), "."), (str(Path(hv15.__file__).parents[1]), "hv15"), (sys.prefix, "env")):
        text = text.replace(f"{folder}/", "" if name == "." else f"{name}/").replace(folder, name)
    copy.write_text(text, encoding="utf-8")
    return copy


if __name__ == "__main__":
    record(Path(sys.argv[1]).absolute())
    size = sum(path.stat().st_size for path in RECORDING.rglob("*") if path.is_file())
    print(f"{RECORDING}: {size / 1000:.0f} kB")
