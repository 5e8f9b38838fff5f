from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hv15.cache.encoding import Encoding, describe
from hv15.errors import UserError
from hv15.records.json_values import Json
from hv15.records.manifest import EncodedClip, Entry, Manifest

KEYS = [f"{number:08x}" + "0" * 56 for number in range(12)]


def make(root: Path, keys: list[str] = KEYS, shards: int = 4, **settings: Json) -> Encoding[str]:
    needed = {key: f"text {key}" for key in keys}
    return Encoding("text", root / "cache", root / "manifests", {"model": "m", **settings}, needed, shards)


def finish(encoding: Encoding[str], *shards: int) -> None:
    """What encoding jobs leave behind."""
    for shard in shards or range(encoding.shards):
        manifest = encoding.new_manifest(shard)
        for key in encoding.by_shard[shard]:
            encoding.store.write(key, {"text": torch.zeros(3, 4), "glyphs": torch.zeros(0, 4)}, {})
            manifest.put(key, Entry())
        manifest.write(encoding.manifest_path(shard))


def complete(encoding: Encoding[str]) -> list[bool]:
    return [encoding.is_complete(shard) for shard in range(encoding.shards)]


def test_a_key_stays_in_its_shard_whatever_else_there_is(tmp_path: Path) -> None:
    whole, part = make(tmp_path), make(tmp_path, KEYS[3:5])
    assert [sorted(shard) for shard in part.by_shard] == [
        sorted(set(shard) & set(KEYS[3:5])) for shard in whole.by_shard
    ]
    assert sorted(key for shard in whole.by_shard for key in shard) == KEYS


def test_only_what_changes_the_values_changes_the_place(tmp_path: Path) -> None:
    assert make(tmp_path, KEYS[:2], shards=9).folder == make(tmp_path).folder
    assert make(tmp_path, tile=128).folder != make(tmp_path).folder
    assert make(tmp_path, tile=128).store.folder != make(tmp_path).store.folder


def test_a_shard_is_complete_when_its_job_has_run(tmp_path: Path) -> None:
    assert complete(make(tmp_path)) == [False] * 4
    finish(make(tmp_path), 0, 2)
    assert complete(make(tmp_path)) == [True, False, True, False]


def test_a_removed_clip_asks_for_nothing_and_a_new_one_for_its_shard(tmp_path: Path) -> None:
    finish(make(tmp_path))
    assert complete(make(tmp_path, KEYS[1:])) == [True] * 4
    added = f"{4 * 7 + 2:08x}" + "0" * 56
    assert complete(make(tmp_path, [*KEYS, added])) == [True, True, False, True]


def test_a_lost_item_asks_for_its_shard_until_it_is_encoded_again(tmp_path: Path) -> None:
    finish(make(tmp_path))
    files = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    make(tmp_path).store.remove(KEYS[5])
    assert complete(make(tmp_path)) == [True, False, True, True]
    assert complete(make(tmp_path, KEYS[:5])) == [True] * 4, "nobody needs the lost one"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == files, "planning changes no file"
    finish(make(tmp_path), 1)
    assert complete(make(tmp_path)) == [True] * 4


def test_a_lost_item_that_nobody_needs_is_forgotten(tmp_path: Path) -> None:
    finish(make(tmp_path), 1)
    make(tmp_path).store.remove(KEYS[5])
    finish(make(tmp_path, KEYS[:5]), 1)
    manifest = make(tmp_path).manifest(1)
    assert manifest is not None
    assert KEYS[1] in manifest.entries
    assert KEYS[5] not in manifest.entries


@pytest.mark.parametrize("spoil", ["tear", "version", "type"])
def test_an_unreadable_manifest_is_made_anew(tmp_path: Path, spoil: str, caplog: pytest.LogCaptureFixture) -> None:
    finish(make(tmp_path))
    path = make(tmp_path).manifest_path(0)
    content = path.read_text()
    spoiled = {
        "tear": content[:-20],
        "version": json.dumps(json.loads(content) | {"version": 1}),
        "type": json.dumps(json.loads(content) | {"entries": [1]}),
    }
    path.write_text(spoiled[spoil])
    assert complete(make(tmp_path)) == [False, True, True, True]
    assert str(path) in caplog.text
    finish(make(tmp_path), 0)
    assert complete(make(tmp_path)) == [True] * 4


def test_the_needs_of_a_shard_have_a_digest(tmp_path: Path) -> None:
    """The job compares it with the spec: the dataset must still be the planned one."""
    assert make(tmp_path).needs_digest(0) == make(tmp_path, KEYS[::-1]).needs_digest(0)
    assert make(tmp_path).needs_digest(0) != make(tmp_path, KEYS[1:]).needs_digest(0)
    assert make(tmp_path).needs_digest(1) == make(tmp_path, KEYS[1:]).needs_digest(1)


def test_what_is_not_encoded_is_counted(tmp_path: Path) -> None:
    finish(make(tmp_path), 0, 1, 2)
    with pytest.raises(UserError, match="3 of 12 texts are not encoded yet"):
        make(tmp_path).entries()
    finish(make(tmp_path), 3)
    assert sorted(make(tmp_path).entries()) == KEYS


def test_another_shard_count_finds_what_was_known(tmp_path: Path) -> None:
    finish(make(tmp_path))
    other = make(tmp_path, shards=3)
    assert complete(other) == [False] * 3
    assert sorted(other.known) == KEYS


def test_what_was_left_out_promises_no_item(tmp_path: Path) -> None:
    encoding = make(tmp_path, KEYS[:1], shards=1)
    manifest = encoding.new_manifest(0)
    manifest.put(KEYS[0], Entry(name="x.mp4", skipped="too short"))
    manifest.write(encoding.manifest_path(0))
    assert complete(make(tmp_path, KEYS[:1], shards=1)) == [True]
    assert make(tmp_path, KEYS[:1], shards=1).needed_items() == set()


def test_forgetting_keeps_what_is_needed(tmp_path: Path) -> None:
    finish(make(tmp_path))
    finish(make(tmp_path, tile=128))
    make(tmp_path, KEYS[:5]).forget_unneeded_entries()
    assert make(tmp_path).promised_items() == make(tmp_path, KEYS[:5]).needed_items() == set(KEYS[:5])
    assert make(tmp_path, tile=128).promised_items() == set(KEYS), "other settings have manifests of their own"


def test_what_a_person_should_know_is_told_by_name() -> None:
    clip = EncodedClip("k", 0, 9, 64, 64)
    entries = {
        "1": Entry("y.mp4", (clip,), too_short_for=(33,)),
        "2": Entry("x.mp4", skipped="too short"),
        "3": Entry("z.mp4", (clip,)),
    }
    assert [name for name, _ in describe(entries)] == ["x.mp4", "y.mp4"]


def test_a_manifest_of_a_project_is_no_part_of_the_store(tmp_path: Path) -> None:
    finish(make(tmp_path))
    assert not list((tmp_path / "cache").rglob("*.json"))
    assert Manifest.load(make(tmp_path).manifest_path(0)).settings == {"model": "m"}
