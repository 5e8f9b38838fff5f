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
from hv15.data.clips import plan_clips
from hv15.data.probe import probe
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
    "resolution": {"resolution": [64, 96]},
    "enable_bucket": {"enable_bucket": False},
    "bucket_no_upscale": {"bucket_no_upscale": True},
    "batch_size": {"batch_size": 2},
    "num_repeats": {"num_repeats": 2},
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
    is_marked = affects(DatasetSettings, name) is not None
    assert (clip_rule(before) == clip_rule(after)) == is_marked


def test_the_marks_are_these() -> None:
    """Whoever marks another setting says here that it touches no pixel, and where else it counts."""
    marks = {name: mark for name in DatasetSettings.model_fields if (mark := affects(DatasetSettings, name))}
    place = ("video_directory", "video_jsonl_file", "image_directory", "image_jsonl_file", "recursive")
    masks = ("unmasked_weight", "unmasked_probability", "masked_prior_preservation_weight")
    caption = ("caption_extension", "default_caption", "caption_prefix", "caption_suffix")
    assert marks == {
        **dict.fromkeys((*place, "use_masks"), "place"),
        **dict.fromkeys(caption, "caption"),
        **dict.fromkeys(("batch_size", "num_repeats", "is_reg", "reg_target", *masks), "weight"),
    }


def test_settings_that_came_later_count_only_if_they_are_used() -> None:
    """So LoRAs from before are up to date."""
    assert marked_view(dataset(), Affects.WEIGHT) == {"batch_size": 1, "num_repeats": 1}
    assert marked_view(dataset(is_reg=True), Affects.WEIGHT) == {"batch_size": 1, "num_repeats": 1, "is_reg": True}


@pytest.mark.parametrize("name", [name for name in OTHER if affects(DatasetSettings, name) and "image" not in name])
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


def test_a_dataset_counts_by_what_it_does_not_by_its_place_in_the_list(open_project: MakeProject, root: Path) -> None:
    add_clip(root, "fox", folder="more")
    one: dict[str, object] = {"video_directory": "clips", "resolution": [64, 64], "target_frames": [9]}
    two: dict[str, object] = {"video_directory": "more", "resolution": [64, 64], "target_frames": [9], "num_repeats": 3}
    first, second = open_project(datasets=[one, two]), open_project(datasets=[two, one])
    assert first.dataset.digest == second.dataset.digest
    assert first.dataset.rules[0] == first.dataset.rules[1], "repeats cut nothing in another way"
    assert first.dataset.identities[0] != first.dataset.identities[1]
    assert open_project(datasets=[one, {**two, "num_repeats": 2}]).dataset.digest != first.dataset.digest


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
