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
    for key in plan.by_shard[shard]:
        plan.store.write(key, {"text": torch.zeros(3, 4), "glyphs": torch.zeros(0, 4)}, {})
    entries = {**plan.manifests[shard].entries, **{key: {} for key in plan.by_shard[shard]}}
    Manifest(plan.manifest_path(shard), entries).save("text", plan.settings)


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


def test_a_manifest_that_promises_lost_items_is_forgotten(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    for shard in range(4):
        finish(plan, shard)
    assert make_plan(tmp_path).drop_broken_promises() == []
    plan.store.remove(KEYS[5])
    assert make_plan(tmp_path).drop_broken_promises() == [plan.manifest_path(5 % 4)]
    with pytest.raises(UserError, match="not encoded yet"):
        make_plan(tmp_path).entries()


def test_a_torn_manifest_is_an_empty_one(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    finish(plan, 0)
    path = plan.manifest_path(0)
    path.write_text(path.read_text()[:-20])
    assert make_plan(tmp_path).manifests[0].entries == {}


def test_the_report_says_what_was_left_out_and_why(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, KEYS[:2], shards=1)
    entries = {KEYS[0]: {"clips": [{"key": "a"}, {"key": "b"}]}, KEYS[1]: {"name": "x.mp4", "skipped": "too short"}}
    Manifest(plan.manifest_path(0), entries).save("text", plan.settings)
    report = make_plan(tmp_path, KEYS[:2], shards=1).write_report(plan.report_path)
    assert (report["sources"], report["items"], report["skipped"]) == (2, 2, {"x.mp4": "too short"})
