"""Paths in remote storage: what is allowed, where copies are, and what is said while they are not here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hv15.errors import UserError
from hv15.project import Project, remote
from hv15.project.remote import RemoteItem, fetch_missing, remote_items, take
from hv15.records.json_values import JsonObject
from tests.project.conftest import MakeProject, add_clip
from tests.project.setting_edits import FILES

CLIPS = "s3://my-bucket/data/clips"
REMOTE: JsonObject = {"datasets": [{"video_directory": CLIPS, "resolution": [64, 64], "target_frames": [9]}]}


def place(project: Project) -> Path:
    return project.root / "cache/remote/my-bucket/data/clips"


def test_what_a_config_names_there(open_project: MakeProject) -> None:
    project = open_project(
        **REMOTE,
        models={"source": "files", **FILES, "vae": "s3://other/vae.safetensors", "tokenizer": "s3://other/tokenizer/"},
        train={
            "network_weights": "s3://my-bucket/start.safetensors",
            "base_weights": [{"path": "s3://other/a.safetensors"}],
        },
        sample={"prompts": [{"name": "one", "prompt": "s3://is/no/path here"}]},
    )
    found = {each.url: str(each.place.relative_to(project.root)) for each in remote_items(project)}
    assert found == {
        "s3://other/vae.safetensors": "cache/remote/other/vae.safetensors",
        "s3://other/tokenizer/": "cache/remote/other/tokenizer",
        CLIPS: "cache/remote/my-bucket/data/clips",
        "s3://my-bucket/start.safetensors": "cache/remote/my-bucket/start.safetensors",
        "s3://other/a.safetensors": "cache/remote/other/a.safetensors",
    }
    assert project.models.path("vae") == project.root / "cache/remote/other/vae.safetensors"


def test_what_an_experiment_names(open_project: MakeProject) -> None:
    project = open_project(experiments={"small": {"train.network_weights": "s3://my-bucket/start.safetensors"}})
    assert [each.url for each in remote_items(project)] == ["s3://my-bucket/start.safetensors"]


def test_a_copy_is_a_dataset_like_any_other(open_project: MakeProject) -> None:
    local = open_project()
    project = open_project(**REMOTE)
    for name in ("cat", "dog"):
        add_clip(project.root, name, folder="cache/remote/my-bucket/data/clips")
    assert project.dataset.digest == local.dataset.digest, "content alone counts"


def test_what_is_not_here_yet_is_said(open_project: MakeProject) -> None:
    project = open_project(**REMOTE, models={"source": "files", **FILES, "vae": "s3://other/vae.safetensors"})
    for look in (lambda: project.dataset.sources, lambda: project.models.check(["vae"])):
        with pytest.raises(UserError, match="is not copied to this machine yet") as caught:
            look()
        assert "hv15 fetch" in str(caught.value)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"cache": {"directory": "s3://b-1/cache"}}, "use a folder of this machine"),
        ({"cache": {"scratch": "s3://b-1/scratch"}}, "use a folder of this machine"),
        ({"models": {"directory": "s3://b-1/models"}}, "use a folder of this machine"),
        ({"datasets": [{"video_jsonl_file": "s3://b-1/list.jsonl"}]}, "a list in remote storage cannot be read"),
        ({"datasets": [{"video_directory": "s3://b-1/../clips"}]}, "cannot be copied here"),
        ({"datasets": [{"video_directory": "s3://b-1/a//clips"}]}, "cannot be copied here"),
        ({"datasets": [{"video_directory": "s3://b-1/{clips}"}]}, "cannot be copied here"),
        ({"datasets": [{"video_directory": "s3://clips"}]}, "expected s3://BUCKET/NAME"),
        ({"datasets": [{"video_directory": "s3://../../clips"}]}, "expected s3://BUCKET/NAME"),
    ],
)
def test_what_cannot_be_copied_is_refused(open_project: MakeProject, sections: JsonObject, words: str) -> None:
    with pytest.raises(UserError, match=r"cache|models|datasets") as caught:
        open_project(**sections)
    assert words in str(caught.value)


def test_without_the_plugin_it_says_how_to_get_it(open_project: MakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="plugin of Snakemake that is not installed") as caught:
        fetch_missing(open_project(**REMOTE))
    assert "pip install 'hv15[s3]'" in caught.value.hint
    assert fetch_missing(open_project()) == [], "nothing to fetch"


@pytest.mark.parametrize("with_links", [True, False])
def test_what_was_retrieved_takes_its_place_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_links: bool
) -> None:
    """On file systems without hard links, too, and on a disk that is not the cache's."""
    if not with_links:

        def refused(*words: object) -> None:
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr(remote.os, "link", refused)
    for source in (tmp_path / "got" / "clips", tmp_path / "got" / "new"):
        source.mkdir(parents=True)
        (source / f"{source.name}.txt").write_text(source.name)
    item = RemoteItem(0, CLIPS, tmp_path / "here/clips", tmp_path / "notes/1.json")
    take(item, str(tmp_path / "got/clips"), str(item.note))
    assert item.is_here
    assert json.loads(item.note.read_text())["url"] == CLIPS
    (tmp_path / "got/clips/clips.txt").unlink()  # Snakemake removes what it has retrieved
    assert (item.place / "clips.txt").read_text() == "clips"
    take(item, str(tmp_path / "got/new"), str(item.note))
    assert [path.name for path in item.place.iterdir()] == ["new.txt"], "what is gone there is gone here"
    assert [path.name for path in item.place.parent.iterdir()] == ["clips"]
