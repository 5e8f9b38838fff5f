"""What a shard of the encoding has, as its job writes it and the planner and the training read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hv15.records.json_values import RecordError
from hv15.records.manifest import EncodedClip, Entry, Manifest, item_keys, read_entry

CLIP = EncodedClip("c1", 0, 9, 64, 96)
ENTRIES = {
    "whole": Entry("clips/a.mp4", (CLIP, EncodedClip("c2", 9, 5, 64, 96))),
    "short": Entry("clips/b.mp4", (CLIP,), too_short_for=(41, 81)),
    "noted": Entry("clips/c.mp4", (CLIP,), notes=("HDR video", "interlaced")),
    "bad": Entry("clips/caf\udce9.mp4", skipped="no video in it"),
}


def manifest() -> Manifest:
    made = Manifest("latents", {"cache.dtype": "auto"}, "needs")
    for key, entry in ENTRIES.items():
        made.put(key, entry)
    return made


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "latents/0-of-1.json"
    manifest().write(path)
    read = Manifest.load(path)
    assert (read.kind, read.settings, read.needs) == ("latents", {"cache.dtype": "auto"}, "needs")
    assert {key: read.entry(key) for key in read.entries} == ENTRIES


def test_a_text_is_its_own_item() -> None:
    texts = Manifest("text", {})
    texts.put("t1", Entry())
    assert texts.entries == {"t1": {}}, "100,000 of them are kept small"
    assert list(texts.item_keys()) == ["t1"]


def test_the_items_that_a_manifest_promises() -> None:
    assert list(manifest().item_keys()) == ["c1", "c2", "c1", "c1"]
    assert item_keys("bad", ENTRIES["bad"].to_json()) == []


def test_an_entry_survives_its_json() -> None:
    for entry in (*ENTRIES.values(), Entry()):
        assert read_entry(json.loads(json.dumps(entry.to_json()))) == entry


def test_an_entry_that_is_not_there() -> None:
    with pytest.raises(KeyError):
        manifest().entry("gone")


@pytest.mark.parametrize(
    "clip", ["c1", {"key": "c1"}, {"key": "c1", "start": 0, "frames": "9", "height": 64, "width": 64}]
)
def test_a_clip_that_is_none(clip: Any) -> None:
    with pytest.raises(RecordError, match="clip"):
        read_entry({"clips": [clip]})


def damaged(**changes: Any) -> Any:
    return {"version": 2, "kind": "text", "settings": {}, "needs": "", "entries": {}} | changes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (damaged(version=1), "is of version 1, but this hv15 understands only version 2"),
        (damaged(kind="video"), "is of the unknown kind 'video'"),
        (damaged(settings=[]), "expected an object"),
        (damaged(entries=[]), "expected an object"),
        (damaged(entries={"a": 1}), "an entry that is not an object"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_manifest(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "0-of-1.json"
    if content is not None:
        path.write_text(json.dumps(content))
    with pytest.raises(RecordError, match=message):
        Manifest.load(path)


def test_one_that_lacks_its_needs_is_read(tmp_path: Path) -> None:
    content = damaged(later=True)
    del content["needs"]
    (tmp_path / "0-of-1.json").write_text(json.dumps(content))
    assert Manifest.load(tmp_path / "0-of-1.json").needs == ""


def test_a_torn_one_is_none(tmp_path: Path) -> None:
    path = tmp_path / "0-of-1.json"
    manifest().write(path)
    for length in range(0, path.stat().st_size - 2, 40):
        (tmp_path / "torn.json").write_bytes(path.read_bytes()[:length])
        with pytest.raises(RecordError, match="not JSON"):
            Manifest.load(tmp_path / "torn.json")
