"""`hv15 lock`: what it records, and that `--check` names what differs, and only that."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from hv15.digest import file_sha256
from hv15.models.weights.fingerprint import model_fingerprint
from tests.commands.workbench import Workbench, is_a_refusal


def locked(project: Workbench) -> dict[str, Any]:
    return json.loads((project.root / "hv15.lock").read_text())


def differences(project: Workbench) -> list[str]:
    """What `--check` lists; the exit code agrees with it."""
    said = project.hv15("lock", "--check")
    lines = said.out.splitlines()[1:]
    assert said.code == (1 if lines else 0), said.err
    assert ("everything is as it was" in said.out) is not bool(lines)
    return [line.strip() for line in lines]


def test_versions_models_and_clips_are_recorded(project: Workbench) -> None:
    said = project.does("lock")
    content = locked(project)
    packages = content["programs"]["packages"]
    assert packages["torch"] == metadata.version("torch")
    assert packages["numpy"] == metadata.version("numpy")
    assert "jinja2" in packages, "torch needs it"
    assert "pytest" not in packages
    dit = Path(project.config["models"]["dit"])
    assert content["models"]["dit"]["fingerprint"] == model_fingerprint(dit)
    names = sorted(path.name for path in project.clips.glob("*.mp4"))
    assert [*content["dataset"]["clips"]] == [f"clips/{name}" for name in names]
    assert content["dataset"]["clips"][f"clips/{names[0]}"].split()[0] == file_sha256(project.clips / names[0])
    assert f"{len(names)} clips" in said.out


def test_nothing_differs_and_the_file_stays_the_same(project: Workbench) -> None:
    project.does("lock")
    before = (project.root / "hv15.lock").read_bytes()
    assert differences(project) == []
    project.does("lock")
    assert (project.root / "hv15.lock").read_bytes() == before


def test_a_clip_takes_one_line(project: Workbench) -> None:
    """So that a diff of two locks says what changed."""
    project.does("lock")
    before = (project.root / "hv15.lock").read_text().splitlines()
    name = next(project.clips.glob("*.mp4")).stem
    project.caption(name, "something else")
    project.does("lock")
    after = (project.root / "hv15.lock").read_text().splitlines()
    [line] = [line for line in after if line not in before and "clips/" in line]
    assert f"clips/{name}.mp4" in line
    assert len(set(after) - set(before)) == 3, "the clip, and the dataset's digest in two places"


def test_each_difference_is_named(project: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    project.does("lock")
    first, second, third = sorted(path.stem for path in project.clips.glob("*.mp4"))
    project.caption(first, "something else")
    (project.clips / f"{second}.mp4").rename(project.clips / "renamed.mp4")
    (project.clips / f"{second}.txt").rename(project.clips / "renamed.txt")
    project.remove(third)
    project.set(train={"learning_rate": 0.5})
    assert differences(project) == [
        "train.learning_rate 0.0001 -> 0.5",
        f"clip clips/{third}.mp4 was removed",
        f"caption of clips/{first}.mp4 changed",
    ]


def test_other_versions_and_models(project: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    project.does("lock")
    path = project.root / "hv15.lock"
    content = locked(project)
    content["programs"]["packages"] |= {"torch": "1.0", "gone": "2.0"}
    content["programs"]["python"] = "3.1"
    content["programs"]["commit"] = ""
    content["models"]["vae"] = {"identity": "other", "fingerprint": "other"}
    path.write_text(json.dumps(content))
    found = differences(project)
    assert f"torch 1.0 -> {metadata.version('torch')}" in found
    assert "gone 2.0 -> not installed" in found
    assert "another file for models.vae" in found
    assert any(line.startswith("Python 3.1 -> 3.") for line in found)


def test_two_clips_of_one_name_are_told_apart(project: Workbench) -> None:
    """A list of clips may name a file twice, with two captions."""
    name = next(project.clips.glob("*.mp4"))
    rows = [{"video_path": str(name), "caption": text} for text in ("one", "two")]
    (project.root / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = {"video_jsonl_file": "list.jsonl", "resolution": [64, 64], "target_frames": [9]}
    project.set(datasets=[dataset])
    project.does("lock")
    assert sorted(locked(project)["dataset"]["clips"]) == [f"clips/{name.name}", f"clips/{name.name} (2)"]
    assert differences(project) == []


def test_without_a_lock_there_is_nothing_to_check(project: Workbench) -> None:
    is_a_refusal(project.hv15("lock", "--check"), ("hv15.lock: does not exist", "`hv15 lock` writes it"))
    (project.root / "hv15.lock").write_text("{")
    is_a_refusal(project.hv15("lock", "--check"), ("hv15.lock: cannot be used: not JSON",))
    (project.root / "hv15.lock").write_text('{"version": 99}')
    is_a_refusal(project.hv15("lock", "--check"), ("is of version 99",))


def test_a_project_that_only_samples(project: Workbench) -> None:
    config = project.config
    del config["datasets"]
    project.write(config)
    project.does("lock")
    assert "dataset" not in locked(project)
    assert differences(project) == []
