from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hv15.cache.plan import Manifest, Plan

from hv15.errors import UserError

KEYS = [f"{number:08x}" + "0" * 56 for number in range(12)]


def make_plan(root: Path, keys: list[str] = KEYS, shards: int = 4, **settings: object) -> Plan[str]:
    return Plan("text", root, {"model": "m", **settings}, {key: f"text {key}" for key in keys}, shards)


def finish(plan: Plan[str], shard: int) -> None:
    """What an encoding job leaves behind."""
    manifest = plan.new_manifest(shard)
    for key in plan.by_shard[shard]:
        plan.store.write(key, {"text": torch.zeros(3, 4), "glyphs": torch.zeros(0, 4)}, {})
    manifest.entries |= {key: {} for key in plan.by_shard[shard]}
    manifest.save("text", plan.settings)


def test_a_key_stays_in_its_shard_whatever_else_there_is(tmp_path: Path) -> None:
    whole, part = make_plan(tmp_path), make_plan(tmp_path, KEYS[3:5])
    assert [sorted(shard) for shard in part.by_shard] == [
        sorted(set(shard) & set(KEYS[3:5])) for shard in whole.by_shard
    ]
    assert sorted(key for shard in whole.by_shard for key in shard) == KEYS


def test_only_what_changes_the_values_changes_the_place(tmp_path: Path) -> None:
    assert make_plan(tmp_path, KEYS[:2], shards=9).folder == make_plan(tmp_path).folder
    assert make_plan(tmp_path, tile=128).folder != make_plan(tmp_path).folder


def test_a_removed_clip_changes_no_digest_and_a_new_one_only_its_shard(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    for shard in range(4):
        finish(plan, shard)
    before = [make_plan(tmp_path).shard_digest(shard) for shard in range(4)]
    assert [make_plan(tmp_path, KEYS[1:]).shard_digest(shard) for shard in range(4)] == before
    added = make_plan(tmp_path, [*KEYS, f"{4 * 7 + 2:08x}" + "0" * 56])
    assert [added.shard_digest(shard) == before[shard] for shard in range(4)] == [True, True, False, True]


def test_a_job_stops_when_its_shard_is_not_the_planned_one(tmp_path: Path) -> None:
    planned = make_plan(tmp_path).shard_digest(0)
    make_plan(tmp_path).check_unchanged(0, planned)
    with pytest.raises(UserError, match="changed while the workflow was running"):
        make_plan(tmp_path, KEYS[1:]).check_unchanged(0, planned)


def test_a_lost_item_asks_for_its_shard_again_and_only_once(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    for shard in range(4):
        finish(plan, shard)
    before = [make_plan(tmp_path).shard_digest(shard) for shard in range(4)]
    files = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    plan.store.remove(KEYS[5])
    assert [make_plan(tmp_path).shard_digest(shard) == before[shard] for shard in range(4)] == [True, False, True, True]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == files, "planning changes no file"

    asked = make_plan(tmp_path).shard_digest(1)
    finish(make_plan(tmp_path), 1)
    assert make_plan(tmp_path).shard_digest(1) == asked, "the job's own result asks for nothing more"


def test_a_lost_item_that_nobody_needs_is_forgotten(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    finish(plan, 1)
    plan.store.remove(KEYS[5])
    finish(make_plan(tmp_path, KEYS[:5]), 1)
    assert KEYS[1] in make_plan(tmp_path).manifests[1].entries
    assert KEYS[5] not in make_plan(tmp_path).manifests[1].entries


def test_what_was_left_out_promises_no_item(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, KEYS[:1], shards=1)
    Manifest(plan.manifest_path(0), {KEYS[0]: {"name": "x.mp4", "skipped": "too short"}}).save("text", plan.settings)
    assert make_plan(tmp_path, KEYS[:1], shards=1).lost == [set()]


def test_forgetting_keeps_what_is_needed(tmp_path: Path) -> None:
    plan, other = make_plan(tmp_path), make_plan(tmp_path, tile=128)
    for shard in range(4):
        finish(plan, shard)
        finish(other, shard)
    make_plan(tmp_path, KEYS[:5]).forget_unused()
    left = make_plan(tmp_path)
    assert sorted(key for manifest in left.manifests for key in manifest.entries) == KEYS[:5]
    assert make_plan(tmp_path, KEYS[:5]).needed_items() == set(KEYS[:5])
    assert not any(manifest.entries for manifest in make_plan(tmp_path, tile=128).manifests)


def test_a_torn_manifest_is_an_empty_one(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    finish(plan, 0)
    path = plan.manifest_path(0)
    path.write_text(path.read_text()[:-20])
    assert make_plan(tmp_path).manifests[0].entries == {}


def test_the_report_says_what_was_left_out_and_why(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, KEYS[:2], shards=1)
    clips = [{"key": "a"}, {"key": "b"}]
    entries = {
        KEYS[0]: {"clips": clips, "name": "y.mp4", "too_short_for": [33]},
        KEYS[1]: {"name": "x.mp4", "skipped": "too short"},
    }
    Manifest(plan.manifest_path(0), entries).save("text", plan.settings)
    report = make_plan(tmp_path, KEYS[:2], shards=1).write_report(plan.report_path)
    assert (report["sources"], report["items"], report["skipped"]) == (2, 2, {"x.mp4": "too short"})
    assert report["too_short_for"] == {"y.mp4": [33]}
