"""Datasets in files of musubi-tuner (TOML, JSON) and in JSONL, and what must be said about them."""

from __future__ import annotations

from pathlib import Path

from hv15.data.musubi import MOST_BYTES
from tests.hostile.entry import Hostile, project

TABLES = {
    "dotted key": "a." * 30_000 + "a = 1",
    "dotted table": "[" + "a . " * 30_000 + "a]",
    "quoted parts": '"x".' * 30_000 + "a = 1",
    "inline": "x = " + "{a = " * 30_000,
    "arrays": "x = " + "[" * 100_000,
    "digits": "x = " + "1" * 100_000,
    "date": "x = 1979-05-27T07:32:00." + "0" * 100_000,
    "tables": "".join(f"[a.b{i}]\n" for i in range(15_000)),
    "too large": "# " + "x" * MOST_BYTES,
}

ROWS = {
    "nested lists": ("[" * 200_000, "nested too deeply"),
    "nested objects": ('{"a":' * 200_000, "nested too deeply"),
    "digits": ('{"video_path": ' + "1" * 100_000 + "}", "v.jsonl:1"),
    "half a character": ('{"video_path": "a.mp4", "caption": "\\ud800"}', "half a character"),
    "half a name": ('{"video_path": "\\ud800.mp4", "caption": "x"}', "does not exist"),
    "nothing in a name": ('{"video_path": "a\\u0000.mp4", "caption": "x"}', "does not exist"),
    "nothing in a caption": ('{"video_path": "a.mp4", "caption": "x\\u0000"}', "NUL character"),
    "an endless name": ('{"video_path": "' + "a" * 100_000 + '", "caption": "x"}', "does not exist"),
    "an endless caption": ('{"video_path": "a.mp4", "caption": "' + "a" * 100_000 + '"}', "more than 64 KiB"),
    "keys": ('{"video_path": 1, ' + ", ".join(f'"k{i}": 1' for i in range(1000)) + "}", 'expected "video_path"'),
    "numbers": ('{"video_path": NaN, "caption": Infinity}', 'expected "video_path"'),
    "utf-16": ('{"video_path": "a.mp4", "caption": "x"}'.encode("utf-16-le"), "not UTF-8 but UTF-16LE"),
}


def _tables(suffix: str, content: str) -> Hostile:
    if suffix == "json":
        content = content.removeprefix("x = ").replace("{a = ", '{"a":')
    make = project(f"d.{suffix}", files=lambda folder: (folder / f"d.{suffix}").write_text(content))
    return Hostile(make, ("check", "."), (f"d.{suffix}",))


def _rows(content: str | bytes, said: str) -> Hostile:
    def files(folder: Path) -> None:
        (folder / "a.mp4").write_bytes(b"x")
        (folder / "v.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())

    return Hostile(project("[{video_jsonl_file: v.jsonl}]", files=files), ("check", "."), ("v.jsonl:1", said))


INPUTS = {
    **{f"{suffix}: {name}": _tables(suffix, text) for suffix in ("toml", "json") for name, text in TABLES.items()},
    **{f"jsonl: {name}": _rows(content, said) for name, (content, said) in ROWS.items()},
}
