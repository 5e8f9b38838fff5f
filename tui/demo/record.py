"""Make the recording from a project folder whose last run has finished:  python -m tui.demo.record PROJECT

Kept are what the dashboard shows: the config, the clips, runs with their events, metrics, logs, samples. Not kept are
models, encoded items and LoRAs. `timeline.json` says when each file appeared or grew, in seconds of the last run.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hv15
from hv15.runs.record import FOLDER, RunFolder, history
from hv15.runs.state import last_events

RECORDING = Path(__file__).parent / "recording"
BEFORE = ("config.yaml", "demo/clips/*", "demo/usual/*", "demo/*.png", "results/train-*/metrics.jsonl")
"""What is there before the run starts. Earlier runs are too."""
DURING = (
    "results/**/*.log",
    "results/train/metrics.jsonl",
    "results/**/samples/*.mp4",
    "results/train/summary.json",
    "results/**/*.txt",
)
STAMP = re.compile(r"\[(\w{3} \w{3} +\d+ \d\d:\d\d:\d\d \d{4})\]")
LONG = re.compile(r"(?<=[\[ ])-?\d{1,4}\.\d{5,}")
MACHINE = re.compile(r"^  (Platform|Host|User|Python version|Command|Base directory): .*\n", re.MULTILINE)


def record(root: Path, target: Path = RECORDING) -> None:
    """Write the recording of a project's last run."""
    last, *earlier = history(root)
    start = _started(last)
    shutil.rmtree(target, ignore_errors=True)
    for pattern in BEFORE:
        for path in sorted(root.glob(pattern)):
            _copy(root, path, target / "project")
    for run in earlier:
        for path in (run.events, run.output, run.config, run.path / "run.json", run.stop):
            if path.is_file():
                _copy(root, path, target / "project")
    files = []
    for path in sorted(_during(root, last)):
        copy = _copy(root, path, target / "run")
        files.append(_entry(root, path, copy, start, last))
    timeline = {
        "run": last.id,
        "start": start,
        "seconds": round(last_events(last.events)[-1]["time"] - start, 3),
        "files": sorted(files, key=lambda entry: (entry["from"], entry["path"])),
    }
    (target / "timeline.json").write_text(json.dumps(timeline, indent=1) + "\n", encoding="utf-8")


def _started(run: RunFolder) -> float:
    found = run.record()
    if found is None:
        raise SystemExit(f"{run.path}: no record of this run")
    return found.started


def _during(root: Path, last: RunFolder) -> Iterator[Path]:
    yield from (last.events, last.output, last.config, last.path / "run.json")
    for pattern in DURING:
        yield from (path for path in root.glob(pattern) if path.is_file())


def _entry(root: Path, path: Path, copy: Path, start: float, last: RunFolder) -> dict[str, Any]:
    """When a file appears (`from`) and when it has grown to its end (`to`); `lines`: when each of its lines came."""
    name = path.relative_to(root).as_posix()
    if path.name in ("run.json", "config.yaml"):
        return {"path": name, "from": 0.0}
    if path.suffix == ".jsonl":
        return {"path": name, "from": 0.0, "lines": "time"}
    if path == last.output:
        return {"path": name, "from": 0.0, "lines": _stamps(copy, start)}
    if path.suffix == ".log":
        begun, ended = _of_job(last, name, start)
        return {"path": name, "from": begun, "to": ended}
    return {"path": name, "from": round(max(0.0, path.stat().st_mtime - start), 2)}


def _stamps(path: Path, start: float) -> list[float]:
    """The time of each line of Snakemake's output, from the stamps in it."""
    times, now = [], 0.0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if found := STAMP.match(line):
            now = max(now, time.mktime(time.strptime(found[1])) - start)
        times.append(round(now, 1))
    return times


def _of_job(run: RunFolder, log: str, start: float) -> tuple[float, float]:
    """Start and end of the job that wrote a log; both 0 when it was none of this run's."""
    ids, begun = set(), 0.0
    for event in last_events(run.events):
        if event["event"] == "job" and log in event["log"]:
            ids, begun = {event["id"]}, event["time"] - start
        if event["event"] in ("done", "failed") and event["id"] in ids:
            return round(begun, 2), round(event["time"] - start, 2)
    return round(begun, 2), round(begun, 2)


def kept_name(path: str) -> str:
    """Where a file of the project stands in the recording: nothing in a package begins with a dot."""
    return path.replace(f"{FOLDER}/", "runs-folder/", 1)


def _copy(root: Path, path: Path, target: Path) -> Path:
    """Copy a file; text without what names the machine, and with numbers as short as anybody reads them."""
    copy = target / kept_name(path.relative_to(root).as_posix())
    copy.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".mp4", ".png"):
        copy.write_bytes(path.read_bytes())
        return copy
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.name == "run.json":
        content = json.loads(text)
        words = content["command"]
        content |= {"command": ["snakemake", *words[words.index("snakemake") + 1 :]], "host": "demo"}
        text = json.dumps(content, indent=1) + "\n"
    elif path.name == "metrics.jsonl":
        text = LONG.sub(lambda found: f"{float(found[0]):.5g}", text)
    elif path.name == "output.log":
        text = MACHINE.sub("", text)
    for folder, name in ((str(root), "."), (str(Path(hv15.__file__).parents[1]), "hv15"), (sys.prefix, "env")):
        text = text.replace(f"{folder}/", "" if name == "." else f"{name}/").replace(folder, name)
    copy.write_text(text, encoding="utf-8")
    return copy


if __name__ == "__main__":
    record(Path(sys.argv[1]).absolute())
    size = sum(path.stat().st_size for path in RECORDING.rglob("*") if path.is_file())
    print(f"{RECORDING}: {size / 1000:.0f} kB")
