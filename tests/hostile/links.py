"""Links and pipes where hv15 writes: nothing outside the project is touched, and nothing is waited for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.hostile.entry import Hostile, project

NO_LINK = "it is a link, which is not followed\n  hint: remove the link"


def _at(name: str, put: Callable[[Path], object]) -> Callable[[Path], None]:
    def files(folder: Path) -> None:
        (folder / "clips").mkdir()
        (folder / "clips/a.mp4").write_bytes(b"nothing")
        (folder / "clips/a.txt").write_text("a caption")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        put(folder / name)

    return project("[{video_directory: clips}]", files=files)


def _to(target: str) -> Callable[[Path], None]:
    """A link to a file beside the project."""

    def put(path: Path) -> None:
        root = next(parent for parent in path.parents if (parent / "config.yaml").exists())
        path.symlink_to(root.parent / "outside" / target)

    return put


INPUTS = {
    "link: the lock": Hostile(
        _at(".hv15/run.lock", _to("notes.txt")), ("run", "."), ("error: ", "run.lock: ", NO_LINK)
    ),
    "link: a lock that would be made": Hostile(
        _at(".hv15/run.lock", _to("new.txt")), ("run", "."), ("error: ", "run.lock: ", NO_LINK)
    ),
    "link: the lock, looked at": Hostile(
        _at(".hv15/run.lock", _to("notes.txt")), ("status", "."), ("no run yet",), code=0
    ),
    "link: what is remembered of media": Hostile(
        _at("cache/index.json", _to("notes.txt")), ("check", "."), ("dataset",)
    ),
    "pipe: the lock, looked at": Hostile(_at(".hv15/run.lock", os.mkfifo), ("status", "."), ("no run yet",), code=0),
    "pipe: a config": Hostile(
        lambda folder: os.mkfifo(folder / "config.yaml"), ("check", "."), ("config.yaml", "not a regular file")
    ),
    "pipe: a LoRA": Hostile(
        lambda folder: os.mkfifo(folder / "a.safetensors"),
        ("convert", "a.safetensors", "b.safetensors"),
        ("error: a.safetensors: not a regular file",),
    ),
    "pipe: rows": Hostile(
        project("[{video_jsonl_file: v.jsonl}]", files=lambda folder: os.mkfifo(folder / "v.jsonl")),
        ("check", "."),
        ("v.jsonl: ", "not a regular file"),
    ),
}
