"""The dataset of a project, by content: what makes a clip or a training another one, and what does not."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from hv15.config import DatasetSettings, marked_view
from hv15.config.fields import affects
from hv15.config.section import Affects
from hv15.data.captions import caption_key
from hv15.data.clips import plan_clips
from hv15.data.probe import probe
from hv15.digest import short
from hv15.errors import UserError
from hv15.project.dataset import clip_rule
from hv15.records.trained_dataset import TrainedDataset
from tests.data.videos import make_video
from tests.project.conftest import MakeProject, add_clip, moved

BASE: dict[str, Any] = {"video_directory": "a", "resolution": [64, 64], "target_frames": [5]}

OTHER: dict[str, dict[str, Any]] = {
    "video_directory": {"video_directory": "b"},
    "video_jsonl_file": {"video_directory": None, "video_jsonl_file": "b.jsonl"},
    "image_directory": {"video_directory": None, "image_directory": "b"},
    "image_jsonl_file": {"video_directory": None, "image_jsonl_file": "b.jsonl"},
    "recursive": {"recursive": True},
    "caption_extension": {"caption_extension": ".caption"},
    "default_caption": {"default_caption": "a clip"},
    "caption_prefix": {"caption_prefix": "sks "},
    "caption_suffix": {"caption_suffix": "."},
    "trigger": {"trigger": "zorp"},
    "caption_variants": {"caption_variants": True},
    "shuffle_tags": {"shuffle_tags": True},
    "tag_dropout": {"tag_dropout": 0.1},
    "keep_tags": {"shuffle_tags": True, "keep_tags": 1},
    "tag_separator": {"shuffle_tags": True, "tag_separator": ";"},
    "caption_versions": {"shuffle_tags": True, "caption_versions": 4},
    "resolution": {"resolution": [64, 96]},
    "enable_bucket": {"enable_bucket": False},
    "bucket_no_upscale": {"bucket_no_upscale": True},
    "batch_size": {"batch_size": 2},
    "num_repeats": {"num_repeats": 2},
    "loss_weight": {"loss_weight": 0.5},
    "start_step": {"start_step": 10},
    "end_step": {"end_step": 10},
    "max_num_samples": {"max_num_samples": 10},
    "is_reg": {"is_reg": True},
    "reg_target": {"reg_target": "clips"},
    "use_masks": {"use_masks": False},
    "unmasked_weight": {"unmasked_weight": 0.5},
    "unmasked_probability": {"unmasked_probability": 0.5},
    "masked_prior_preservation_weight": {"masked_prior_preservation_weight": 0.5},
    "target_frames": {"target_frames": [9]},
    "frame_extraction": {"frame_extraction": "chunk"},
    "frame_stride": {"frame_stride": 2},
    "frame_sample": {"frame_sample": 2},
    "max_frames": {"max_frames": 9},
    "source_fps": {"source_fps": 12.0},
    "target_fps": {"target_fps": 12.0},
    "background": {"background": "#ffffff"},
}
"""Setting -> a dataset that differs in it alone (from BASE, which may need more for the setting to be read)."""

READ_WITH = {"frame_stride": "slide", "frame_sample": "uniform", "max_frames": "full"}
"""Setting -> the extraction that reads it."""


def dataset(**changes: Any) -> DatasetSettings:
    return DatasetSettings.model_validate(BASE | changes)


def pair(name: str) -> tuple[DatasetSettings, DatasetSettings]:
    """Two datasets that differ in one setting, where it is read; an image dataset has no lengths of clips."""
    context: dict[str, Any] = {"frame_extraction": READ_WITH[name]} if name in READ_WITH else {}
    if name.startswith("image"):
        context = {"target_frames": [1]}
    if name == "reg_target":
        context = {"is_reg": True}
    return dataset(**context), dataset(**context, **OTHER[name])


@pytest.mark.parametrize("name", DatasetSettings.model_fields)
def test_every_setting_makes_new_clips_or_is_marked_as_one_that_does_not(name: str) -> None:
    """A setting that somebody adds and forgets must not silently reuse old clips."""
    before, after = pair(name)
    assert getattr(before, name) != getattr(after, name)
    is_marked = affects(DatasetSettings, name) != Affects.PAST
    assert (clip_rule(before) == clip_rule(after)) == is_marked


def test_the_marks_are_these() -> None:
    """Whoever marks another setting says here that it touches no pixel, and where else it counts."""
    found = {name: affects(DatasetSettings, name) for name in DatasetSettings.model_fields}
    marks = {name: mark for name, mark in found.items() if mark != Affects.PAST}
    place = (
        "video_directory",
        "video_jsonl_file",
        "image_directory",
        "image_jsonl_file",
        "recursive",
        "max_num_samples",
        "use_masks",
    )
    caption = ("caption_extension", "default_caption", "caption_prefix", "caption_suffix", "trigger")
    texts = ("caption_variants", "shuffle_tags", "tag_dropout", "keep_tags", "tag_separator", "caption_versions")
    masks = ("unmasked_weight", "unmasked_probability", "masked_prior_preservation_weight")
    weight = ("batch_size", "num_repeats", "loss_weight", "start_step", "end_step", "is_reg", "reg_target", *masks)
    assert marks == {
        **dict.fromkeys(place, "place"),
        **dict.fromkeys((*caption, *texts), "caption"),
        **dict.fromkeys(weight, "weight"),
    }


def test_settings_that_came_later_count_only_if_they_are_used() -> None:
    """So LoRAs from before are up to date."""
    assert marked_view(dataset(), Affects.WEIGHT) == {"batch_size": 1, "num_repeats": 1}
    assert marked_view(dataset(is_reg=True), Affects.WEIGHT) == {"batch_size": 1, "num_repeats": 1, "is_reg": True}


@pytest.mark.parametrize(
    "name", [name for name in OTHER if affects(DatasetSettings, name) != Affects.PAST and "image" not in name]
)
def test_a_marked_setting_cuts_the_same_clips(name: str, tmp_path: Path) -> None:
    info = probe(make_video(tmp_path / "a.mp4", 24), "video")
    before, after = pair(name)
    assert plan_clips(info, before) == plan_clips(info, after) != []


@pytest.mark.parametrize("extraction", ["head", "chunk", "slide", "uniform", "full"])
@pytest.mark.parametrize("name", [*READ_WITH, "target_frames"])
def test_a_setting_that_is_not_read_changes_nothing(name: str, extraction: str, tmp_path: Path) -> None:
    """A `frame_stride` without `slide` is no reason to encode anything again."""
    info = probe(make_video(tmp_path / "a.mp4", 48), "video")
    before = dataset(frame_extraction=extraction)
    after = dataset(frame_extraction=extraction, **OTHER[name])
    is_read = extraction != "full" if name == "target_frames" else extraction == READ_WITH[name]
    assert (clip_rule(before) != clip_rule(after)) == is_read
    assert (plan_clips(info, before) != plan_clips(info, after)) == is_read


# -- the media ------------------------------------------------------------------------------------------------------


def test_the_order_and_the_digest_follow_the_content(open_project: MakeProject, root: Path) -> None:
    before = open_project()
    names = [(each.media, each.caption) for each in before.dataset.pairs]
    for path in sorted((root / "clips").glob("cat.*")):
        path.rename(path.with_stem("zebra, with spaces"))
    for path in (root / "clips").iterdir():
        os.utime(path)
    after = open_project()
    assert after.dataset.digest == before.dataset.digest
    assert [(each.media, each.caption) for each in after.dataset.pairs] == names
    assert {each.name for each in after.dataset.pairs} == {"clips/zebra, with spaces.mp4", "clips/dog.mp4"}


def test_the_digest_is_that_of_the_sorted_pairs(open_project: MakeProject) -> None:
    """Another digest would train every LoRA again."""
    found = open_project().dataset
    rows = sorted([pair.media, pair.caption, found.identities[pair.dataset]] for pair in found.pairs)
    assert found.digest == hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()


def test_a_moved_project_has_the_same_dataset(open_project: MakeProject, tmp_path: Path) -> None:
    before = open_project()
    digest, record = before.dataset.digest, before.dataset.record()
    after = moved(before, tmp_path / "elsewhere")
    assert after.dataset.digest == digest
    assert after.dataset.record() == record, "names are from the project folder"


@pytest.mark.parametrize(
    "edit",
    [
        lambda root: add_clip(root, "fox"),
        lambda root: add_clip(root, "cat", "another caption"),
        lambda root: (root / "clips/cat.mp4").write_bytes(b"another video"),
        lambda root: [path.unlink() for path in (root / "clips").glob("cat.*")],
        lambda root: [add_clip(root, "cat", "a dog that runs"), add_clip(root, "dog", "a cat that runs")],
        lambda root: [path.with_stem("copy").write_bytes(path.read_bytes()) for path in (root / "clips").glob("cat.*")],
    ],
    ids=["a clip added", "a caption", "another video", "a clip removed", "two captions swapped", "a clip copied"],
)
def test_what_makes_it_another_dataset(open_project: MakeProject, root: Path, edit: Any) -> None:
    before = open_project().dataset.digest
    edit(root)
    assert open_project().dataset.digest != before


LISTS: dict[str, object] = {"video_directory": "clips", "resolution": [64, 64], "target_frames": [9]}


def test_one_text_has_its_own_key_and_several_have_one_together(open_project: MakeProject, root: Path) -> None:
    """So a dataset whose captions are single texts stays the same dataset when variants are switched on."""
    plain = open_project().dataset
    assert open_project(datasets=[{**LISTS, "caption_variants": True}]).dataset.digest == plain.digest
    assert {each.caption for each in plain.sources} == {caption_key(each.source.caption) for each in plain.sources}
    add_clip(root, "cat", "a cat that runs\na cat")
    both = open_project(datasets=[{**LISTS, "caption_variants": True}]).dataset
    cat = next(pair for pair in both.pairs if pair.name == "clips/cat.mp4")
    assert cat.texts == (caption_key("a cat that runs"), caption_key("a cat"))
    assert cat.caption == hashlib.sha256("\n".join(cat.texts).encode()).hexdigest()
    add_clip(root, "cat", "a cat\na cat that runs")
    assert open_project(datasets=[{**LISTS, "caption_variants": True}]).dataset.digest != both.digest


def test_only_what_is_trained_on_is_read_with_drawn_tags(open_project: MakeProject, root: Path) -> None:
    for name in ("cat", "dog", "fox", "owl"):
        add_clip(root, name, f"{name}, red, blue, green")
    tagged = {**LISTS, "shuffle_tags": True, "caption_versions": 3}
    dataset = open_project(datasets=[tagged], train={"validation": {"fraction": 0.3}}).dataset
    trained, held_out = dataset.pairs, dataset.validation_pairs
    assert trained
    assert held_out
    keys = [key for pair in trained for key in pair.texts] + [pair.texts[0] for pair in held_out]
    assert dataset.texts.keys() == set(keys)
    assert all(caption_key(text) == key for key, text in dataset.texts.items())


def test_an_edited_line_is_the_only_new_text(open_project: MakeProject, root: Path) -> None:
    add_clip(root, "cat", "a cat, red, blue\nanother cat, black, white")
    datasets = [{**LISTS, "caption_variants": True, "tag_dropout": 0.5, "caption_versions": 4}]
    before = open_project(datasets=datasets).texts.needed
    add_clip(root, "cat", "a cat, red, blue\nanother cat, black, brown")
    after = open_project(datasets=datasets).texts.needed
    new = [text for key, text in after.items() if key not in before]
    assert 1 < len(new) <= 4
    assert all("black" in text or "brown" in text or "another cat" in text for text in new)


def test_a_dataset_counts_by_what_it_does_not_by_its_place_in_the_list(open_project: MakeProject, root: Path) -> None:
    add_clip(root, "fox", folder="more")
    one: dict[str, object] = {"video_directory": "clips", "resolution": [64, 64], "target_frames": [9]}
    two: dict[str, object] = {"video_directory": "more", "resolution": [64, 64], "target_frames": [9], "num_repeats": 3}
    first, second = open_project(datasets=[one, two]), open_project(datasets=[two, one])
    assert first.dataset.digest == second.dataset.digest
    assert first.dataset.rules[0] == first.dataset.rules[1], "repeats cut nothing in another way"
    assert first.dataset.identities[0] != first.dataset.identities[1]
    assert open_project(datasets=[one, {**two, "num_repeats": 2}]).dataset.digest != first.dataset.digest


def test_what_is_new_counts_only_where_it_is_used(open_project: MakeProject) -> None:
    """The identity of a dataset is in the digest of every LoRA that was trained on it."""
    before = open_project(datasets=[{**LISTS, "num_repeats": 3}]).dataset
    known = {"rule": before.rules[0], "batch_size": 1, "num_repeats": 3}
    assert before.identities == [short(known)]
    for changes in ({"loss_weight": 0.5}, {"start_step": 5}, {"end_step": 5}):
        after = open_project(datasets=[{**LISTS, "num_repeats": 3, **changes}, LISTS]).dataset
        assert after.identities[0] == short(known | changes)


def test_a_limited_dataset_keeps_its_files_when_others_are_added(open_project: MakeProject, root: Path) -> None:
    limited = {**LISTS, "max_num_samples": 4}
    for number in range(8):
        add_clip(root, f"clip{number}")
    used = {each.media for each in open_project(datasets=[limited]).dataset.sources}
    everything = {each.media for each in open_project().dataset.sources}
    by_hash = sorted(everything, key=lambda media: hashlib.sha256(f"max_num_samples/{media}".encode()).digest())
    assert used == set(by_hash[:4])
    for number in range(8, 20):
        add_clip(root, f"clip{number}")
        after = open_project(datasets=[limited]).dataset
        assert len(after.sources) == len(after.texts) == 4
        assert len(used - {each.media for each in after.sources}) <= 1, "one more file takes the place of one at most"
        used = {each.media for each in after.sources}
    for path in sorted((root / "clips").glob("clip*")):
        path.rename(path.with_stem(f"x{path.stem}"))
    assert open_project(datasets=[limited]).dataset.digest == after.digest, "names do not count"
    assert open_project(datasets=[{**LISTS, "max_num_samples": 99}]).dataset.digest == open_project().dataset.digest


def test_the_limit_of_one_dataset_leaves_others_alone(open_project: MakeProject, root: Path) -> None:
    add_clip(root, "fox", folder="more")
    add_clip(root, "hen", folder="more")
    datasets = [{**LISTS, "max_num_samples": 1}, {**LISTS, "video_directory": "more"}]
    assert sorted(each.dataset for each in open_project(datasets=datasets).dataset.sources) == [0, 1, 1]


def test_one_medium_may_be_in_two_datasets(open_project: MakeProject) -> None:
    one: dict[str, object] = {"video_directory": "clips", "resolution": [64, 64], "target_frames": [9]}
    dataset = open_project(datasets=[one, {**one, "resolution": [96, 96]}]).dataset
    assert len({each.media for each in dataset.pairs}) == 2
    assert len({each.source_key for each in dataset.pairs}) == 4


def test_all_datasets_at_fault_are_named_together(open_project: MakeProject) -> None:
    project = open_project(datasets=[{"video_directory": "clip"}, {"image_directory": "clips"}])
    with pytest.raises(UserError) as caught:
        _ = project.dataset.sources
    assert "datasets[0]: " in caught.value.message
    assert "datasets[1]: " in caught.value.message
    assert "does not exist" in caught.value.message


def test_the_record_holds_names_keys_and_digest(open_project: MakeProject, tmp_path: Path) -> None:
    dataset = open_project().dataset
    dataset.record().write(tmp_path / "dataset.json")
    read = TrainedDataset.load(tmp_path / "dataset.json")
    assert read == dataset.record()
    assert read.digest == dataset.digest
    assert {each.name for each in read.pairs} == {"clips/cat.mp4", "clips/dog.mp4"}
    assert [each.media for each in read.pairs] == [each.media for each in dataset.pairs]
