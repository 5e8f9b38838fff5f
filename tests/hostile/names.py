"""Names, captions and settings that mean something to a terminal, to a shell or to Snakemake."""

from __future__ import annotations

import json
from pathlib import Path

from tests.hostile.entry import MADE_LATER, Hostile, project
from tests.hostile.texts import HOSTILE

ALL = "".join(HOSTILE.values())
CLIPS = project("[{video_directory: clips}]")


def _clips(folder: Path) -> None:
    (folder / "clips").mkdir()
    for text in HOSTILE.values():
        (folder / f"clips/{text}.mp4").write_bytes(b"nothing")
        (folder / f"clips/{text}.txt").write_text(f"caption {text}")
        (folder / f"clips/{text}2.mp4").write_bytes(b"without a caption")


def _caption(content: bytes, *said: str) -> Hostile:
    def files(folder: Path) -> None:
        (folder / "clips").mkdir()
        (folder / "clips/a.mp4").write_bytes(b"nothing")
        (folder / "clips/a.txt").write_bytes(content)

    return Hostile(project("[{video_directory: clips}]", files=files), ("check", "."), ("clips/a.txt: ", *said))


def _settings(folder: Path) -> None:
    settings = json.dumps({text: text for text in HOSTILE.values()})  # JSON is YAML
    (folder / "config.yaml").write_text(
        f"{MADE_LATER}datasets: [{{video_directory: {json.dumps(ALL)}}}]\ntrain: {settings}\n"
    )


def _braces(folder: Path) -> None:
    (folder / "config.yaml").write_text(
        "models: {source: demo, directory: 'mo{del}s'}\ndatasets: [{video_directory: clips}]\n"
    )


INPUTS = {
    "names: of clips": Hostile(
        project("[{video_directory: clips}]", files=_clips), ("check", "."), ("a\u241b]52;c;", "\n    hint: ")
    ),
    "names: of clips, for the plan": Hostile(
        project("[{video_directory: clips}]", files=_clips), ("why", "."), ("error: ", "a\u241b]52;c;")
    ),
    "names: of settings": Hostile(_settings, ("check", "."), ("config.yaml:3:", "unknown key", "a\u241b]52;c;")),
    "names: of a file that is shown": Hostile(CLIPS, ("show", ALL), ("error: a\u241b]52;c;",)),
    "names: of a target": Hostile(CLIPS, ("why", ".", "--target", ALL), ("error: ")),
    "names: braces in the models' folder": Hostile(
        _braces, ("check", "."), ("mo{del}s: { } in a name is a placeholder of Snakemake", "without { and }")
    ),
    "caption: bytes that are no text": _caption(b"\xff\xfea\x00", "not UTF-8"),
    "caption: zeros": _caption(b"a\0b", "NUL"),
    "caption: without end": _caption(b"a " * (1 << 20), "more than 64 KiB"),
}
