"""What runs, caches and memories hold, cut, flipped or forged."""

from __future__ import annotations

from pathlib import Path

from tests.hostile.entry import Hostile, project
from tests.hostile.texts import HOSTILE
from tui.demo.replay import RECORDING

RUN = ".hv15/runs/20260101-000000-abcd"
RECORD = (max((RECORDING / "project/runs-folder/runs").iterdir()) / "run.json").read_bytes()
"""Of a run that was recorded for the dashboard's demo."""
ALL = "".join(HOSTILE.values())
FROM_DEMO = "20260101-000000-abcd: elsewhere (it was started on demo"
DEEP = b"[" * (1 << 20)
LONG = b'{"kind": "step", "step": ' + b"9" * (4 << 20) + b"}\n"
MEMORIES = ("cache/index.json", "cache/fingerprints.json", ".hv15/told.json")


def _run(said: str, *command: str, **files: bytes) -> Hostile:
    """A run whose files hold these bytes; `_` in a name stands for the dot."""

    def make(folder: Path) -> None:
        project("[{video_directory: clips}]")(folder)
        (folder / RUN).mkdir(parents=True)
        (folder / "results/train").mkdir(parents=True)
        for name, content in files.items():
            place = "results/train" if name == "metrics_jsonl" else RUN
            (folder / place / name.replace("_", ".")).write_bytes(content)

    return Hostile(make, command, (said,), code=0)


def _memories(content: bytes) -> Hostile:
    def files(folder: Path) -> None:
        (folder / "clips").mkdir()
        for name in MEMORIES:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)

    return Hostile(
        project("[{video_directory: clips}]", files=files),
        ("check", "."),
        ("fingerprints.json: not used (damaged, or of another version)",),
    )


INPUTS = {
    "run: a record of lists": _run("20260101-000000-abcd: ", "status", ".", run_json=DEEP),
    "run: a record, for programs": _run('"running": false', "status", ".", "--json", run_json=DEEP),
    "run: events without end": _run(FROM_DEMO, "status", ".", run_json=RECORD, events_jsonl=DEEP + b"\n" + LONG),
    "run: metrics without end": _run(FROM_DEMO, "status", ".", run_json=RECORD, metrics_jsonl=DEEP + b"\n" + LONG),
    "run: output that a terminal would obey": _run(
        FROM_DEMO, "status", ".", run_json=RECORD, output_log=ALL.encode() * 1000
    ),
    "memories: of lists": _memories(DEEP),
    "memories: of zeros": _memories(bytes(4096)),
}
