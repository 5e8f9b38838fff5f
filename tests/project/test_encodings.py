"""What of a project has to be encoded, and which settings change what comes out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_args

import pytest

from hv15.config import CacheSettings
from hv15.config.fields import affects
from hv15.config.section import Affects
from hv15.data.captions import caption_key
from hv15.project import Project
from hv15.records import formats
from hv15.records.paths import EncodedKind
from tests.project.conftest import MakeProject, add_clip, moved

KINDS = get_args(EncodedKind)

OTHER: dict[str, Any] = {
    "directory": "elsewhere",
    "scratch": "$TMPDIR",
    "shards": 3,
    "vae_sample_size": 128,
    "vae_tile_overlap": 0.5,
    "vae_enable_patch_conv": True,
    "fp8_vl": True,
    "text_encoder_cpu": True,
    "dtype": "float32",
    "latent_dtype": "float32",
    "text_dtype": "float32",
    "latent_batch": 2,
    "text_batch": 2,
    "workers": 1,
    "bad_clips": "skip",
}
"""Setting of `cache` -> another value."""

COUNTS: dict[str, set[EncodedKind]] = {
    "vae_sample_size": {"latents"},
    "vae_tile_overlap": {"latents"},
    "latent_dtype": {"latents"},
    "fp8_vl": {"text"},
    "text_encoder_cpu": {"text"},
    "text_dtype": {"text"},
}
"""Setting -> what it changes, where it does not change both."""


def settings_of(project: Project) -> dict[EncodedKind, object]:
    return {each.kind: each.settings for each in project.encodings}


def digests_of(project: Project) -> dict[EncodedKind, str]:
    return {each.kind: each.settings_digest for each in project.encodings}


@pytest.mark.parametrize("name", CacheSettings.model_fields)
def test_every_setting_makes_new_items_or_is_marked_as_one_that_does_not(name: str, open_project: MakeProject) -> None:
    """A setting that somebody adds and forgets must not silently reuse old latents or text states."""
    context = {"vae_sample_size": 128} if name == "vae_tile_overlap" else {}
    before = open_project(cache=context)
    after = open_project(cache={**context, name: OTHER[name]})
    assert getattr(before.settings.cache, name) != getattr(after.settings.cache, name)
    old, new = digests_of(before), digests_of(after)
    changed = {kind for kind in KINDS if old[kind] != new[kind]}
    if affects(CacheSettings, name) != Affects.PAST:
        assert changed == set()
    else:
        assert changed == COUNTS.get(name, {"latents", "text"})


def test_the_marks_are_these() -> None:
    """Whoever marks another setting says here that it changes no encoded value."""
    marked = {name for name in CacheSettings.model_fields if affects(CacheSettings, name) != Affects.PAST}
    speed = {"shards", "vae_enable_patch_conv", "latent_batch", "text_batch", "workers", "bad_clips"}
    assert marked == {"directory", "scratch", *speed}


def test_the_overlap_of_tiles_counts_only_with_tiles(open_project: MakeProject) -> None:
    assert digests_of(open_project(cache={"vae_tile_overlap": 0.5})) == digests_of(open_project())


@pytest.mark.parametrize(("task", "roles"), [("t2v", {"vae"}), ("i2v", {"vae", "image_encoder"})])
def test_the_models_of_an_encoding_are_in_its_settings(
    task: str, roles: set[str], open_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: list[object] = []
    project = open_project(task=task, sample={"prompts": prompts})
    assert {key for key in project.latents.settings if key.startswith("models.")} == {
        f"models.{role}" for role in roles
    }
    before = digests_of(project)
    monkeypatch.setattr("hv15.project.model_files.DEMO_VERSION", "another")
    after = digests_of(open_project(task=task, sample={"prompts": prompts}))
    assert before["latents"] != after["latents"]
    assert before["text"] != after["text"]
    assert {key for key in project.texts.settings if key.startswith("models.")} == {
        *("models.text_encoder", "models.tokenizer", "models.glyph_encoder"),
    }


def test_a_format_number_makes_everything_of_its_kind_again(
    open_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digests_of(open_project())
    monkeypatch.setattr(formats, "LATENTS", formats.LATENTS + 1)
    after = digests_of(open_project())
    assert before["latents"] != after["latents"]
    assert before["text"] == after["text"]


def test_settings_hold_what_a_user_wrote_and_no_place(open_project: MakeProject, tmp_path: Path) -> None:
    project = open_project(cache={"vae_sample_size": 128})
    assert project.latents.settings == {
        "format": formats.LATENTS,
        "models.vae": "demo:3:vae",
        "cache.vae_sample_size": 128,
        "cache.vae_tile_overlap": 0.25,
        "cache.dtype": "auto",
        "cache.latent_dtype": "auto",
    }
    before, settings = digests_of(project), settings_of(project)
    needed = set(project.latents.needed), set(project.texts.needed)
    after = moved(project, tmp_path / "elsewhere")
    assert (digests_of(after), settings_of(after)) == (before, settings)
    assert (set(after.latents.needed), set(after.texts.needed)) == needed


def test_clips_are_needed_by_content_and_rule(open_project: MakeProject, root: Path) -> None:
    project = open_project()
    [rule] = project.dataset.rules
    assert set(project.latents.needed) == {f"{each.media}-{rule}" for each in project.dataset.sources}
    assert {need.source.path.name for need in project.latents.needed.values()} == {"cat.mp4", "dog.mp4"}
    (root / "clips/copy.mp4").write_bytes((root / "clips/cat.mp4").read_bytes())
    (root / "clips/copy.txt").write_text("another caption")
    assert set(open_project().latents.needed) == set(project.latents.needed), "the same video is encoded once"


def test_each_text_is_needed_once(open_project: MakeProject, root: Path) -> None:
    """Captions, prompts, negative prompts where guidance reads them, and always the empty text."""
    add_clip(root, "puma", "a cat that runs")
    prompts = [
        {"name": "one", "prompt": "a dog that runs", "negative_prompt": "blurry"},
        {"name": "two", "prompt": "a fox", "negative_prompt": "loud", "guidance_scale": 1.0},
    ]
    needed = open_project(sample={"prompts": prompts}).texts.needed
    assert set(needed.values()) == {"", "a cat that runs", "a dog that runs", "a fox", "blurry"}
    assert all(key == caption_key(text) for key, text in needed.items())


def test_shards_split_what_is_needed(open_project: MakeProject) -> None:
    encoding = open_project(cache={"shards": 3}).texts
    assert [encoding.manifest_path(shard).name for shard in range(3)] == ["0-of-3.json", "1-of-3.json", "2-of-3.json"]
    parts = [set(part) for part in encoding.by_shard]
    assert set.union(*parts) == set(encoding.needed)
    assert sum(map(len, parts)) == len(encoding.needed)


def test_items_are_in_the_cache_and_manifests_in_the_project(open_project: MakeProject, root: Path) -> None:
    project = open_project(cache={"directory": "../store"})
    latents = project.latents
    assert latents.store.folder.resolve().is_relative_to(root.parent / "store/store/latents")
    assert latents.manifest_path(0).is_relative_to(root / "results/manifests/latents")
    assert dataclasses.replace(latents, shards=2).settings_digest == latents.settings_digest
