"""Why a stage has to run, in words that a person can act on. The jobs are stand-ins, and no Snakemake takes part."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hv15.records import formats
from hv15.workflow.differences import MOST_NAMED
from tests.workflow.finished import finish, open_project, why
from tests.workflow.quick import CLIPS, QuickProject


@pytest.fixture
def project(finished: QuickProject, tmp_path: Path) -> QuickProject:
    """A finished project of one's own."""
    copied = finished.copied(tmp_path / "project", everything=True)
    assert why(copied) == {}
    return copied


# -- training -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"network_dim": 8}, ["train.network_dim 4 -> 8"]),
        ({"learning_rate": 0.3, "seed": 7}, ["train.learning_rate 0.0001 -> 0.3", "train.seed 42 -> 7"]),
        ({"optimizer_args": {"eps": 1e-6}}, ["train.optimizer_args.eps not set -> 1e-06"]),
    ],
)
def test_settings_of_the_training(project: QuickProject, settings: dict[str, object], words: list[str]) -> None:
    project.set(train=settings)
    assert why(project) == {
        "train": words,
        "sample_latents.one": ["the LoRA is trained again"],
        "sample_video.one": ["it is sampled again"],
        "publish": ["one is new", "the LoRA is trained again"],
    }


def test_patience_is_named_when_it_comes_and_goes(project: QuickProject) -> None:
    own = {"video_directory": "others", "resolution": [64, 64], "target_frames": [9]}
    for name in ("elk", "eft"):
        (project.root / "others").mkdir(exist_ok=True)
        (project.root / f"others/{name}.mp4").write_bytes(f"the video {name}".encode())
        (project.root / f"others/{name}.txt").write_text(f"an {name} that runs")
    project.set(train={"validation": {"datasets": [own], "every_n_steps": 1, "patience": 2}})
    assert why(project)["train"] == ["train.validation.patience not set -> 2"]
    finish(project)
    (project.root / "others/eft.mp4").unlink()
    assert why(project)["train"] == ["other clips in the validation, which decides when it ends (patience)"]
    project.set(train={"validation": {"patience": None}})
    assert why(project)["train"] == ["train.validation.patience 2 -> not set"]


def test_a_step_that_is_published_and_the_last_one_again(project: QuickProject) -> None:
    project.set(train={"publish_step": 1})
    step = "train.publish_step not set -> 1"
    assert why(project) == {
        "keep_checkpoint.1": ["not made yet"],
        "sample_latents.one": [step],
        "sample_video.one": ["it is sampled again"],
        "publish": ["one is new", step],
    }
    finish(project)
    assert why(project) == {}
    project.set(train={"max_train_steps": 4})  # the published step does not depend on it
    assert why(project) == {}
    project.set(train={"publish_step": None, "max_train_steps": 2})
    assert why(project)["publish"] == ["one is new", "train.publish_step 1 -> not set"]
    project.set(train={"publish_step": 1, "seed": 7})
    assert why(project)["keep_checkpoint.1"] == ["the training comes to it"]
    assert why(project)["sample_latents.one"] == ["the LoRA is trained again"]


def test_a_lora_to_start_from(project: QuickProject) -> None:
    project.add_lora("start.safetensors")
    project.set(train={"network_weights": "start.safetensors"})
    assert why(project)["train"] == ["another file for train.network_weights"]


def test_a_new_format_of_what_is_computed(project: QuickProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "TRAINING", formats.TRAINING + 1)
    assert why(project)["train"] == ["hv15 trains in a new way"]
    monkeypatch.setattr(formats, "DENOISING", formats.DENOISING + 1)
    assert why(project)["sample_latents.one"] == ["hv15 samples in a new way", "the LoRA is trained again"]
    monkeypatch.setattr(formats, "TEXT", formats.TEXT + 1)
    assert why(project)["encode_texts"] == ["hv15 encodes captions in a new way"] * 2


# -- the dataset ----------------------------------------------------------------------------------------------------


def remove(name: str) -> Callable[[QuickProject], None]:
    return lambda project: [path.unlink() for path in list(project.clips.glob(f"{name}.*"))] and None


def rename(project: QuickProject) -> None:
    for path in list(project.clips.glob("cat.*")):
        path.rename(path.with_stem("lion"))


def another_video(project: QuickProject) -> None:
    (project.clips / "cat.mp4").write_bytes(b"another video")


def swap(project: QuickProject) -> None:
    project.caption("cat", "a dog that runs")
    project.caption("dog", "a cat that runs")


def rename_and_add(project: QuickProject) -> None:
    rename(project)
    project.add_clip("hen")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (
            lambda project: project.caption("cat", "a cat that sleeps"),
            {"train": ["caption of clips/cat.mp4 changed"], "encode_texts": ["caption of clips/cat.mp4 changed"]},
        ),
        (
            lambda project: project.add_clip("hen"),
            {
                "train": ["new clip clips/hen.mp4"],
                "encode_latents": ["new clip clips/hen.mp4"],
                "encode_texts": ["new caption of clips/hen.mp4"],
            },
        ),
        (another_video, {"train": ["clips/cat.mp4 changed"], "encode_latents": ["clips/cat.mp4 changed"]}),
        (remove("pig"), {"train": ["clip clips/pig.mp4 was removed"]}),
        (swap, {"train": ["caption of clips/cat.mp4 changed", "caption of clips/dog.mp4 changed"]}),
        (rename, {}),
        (
            rename_and_add,
            {
                "train": ["new clip clips/hen.mp4"],
                "encode_latents": ["new clip clips/hen.mp4"],
                "encode_texts": ["new caption of clips/hen.mp4"],
            },
        ),
    ],
    ids=["caption", "new clip", "another video", "removed", "swapped", "renamed", "renamed and new"],
)
def test_the_dataset(project: QuickProject, edit: Callable[[QuickProject], None], words: dict[str, list[str]]) -> None:
    edit(project)
    found = why(project)
    assert {name: reasons for name, reasons in found.items() if name.startswith(("encode", "train"))} == words


def test_clips_that_are_cut_in_another_way(project: QuickProject) -> None:
    project.set(datasets=[{"video_directory": "clips", "resolution": [64, 64], "target_frames": [5]}])
    found = why(project)
    assert found["train"] == ["the way a dataset's clips are cut or weighted changed"]
    assert found["encode_latents"] == sorted(f"clips of clips/{name}.mp4 are cut in another way" for name in CLIPS)
    project.set(datasets=[{"video_directory": "clips", "resolution": [64, 64], "target_frames": [9], "num_repeats": 2}])
    found = why(project)
    assert found["train"] == ["the way a dataset's clips are cut or weighted changed"]
    assert "encode_latents" not in found


def test_of_drawn_texts_only_those_of_an_edited_line_are_new(project: QuickProject) -> None:
    drawn = {"caption_variants": True, "shuffle_tags": True, "caption_versions": 3}
    project.set(
        datasets=[{"video_directory": "clips", "resolution": [64, 64], "target_frames": [9], **drawn}],
        cache={"shards": 1},
    )
    project.caption("cat", "a cat, red, blue, green, large\na cat, one, two, three, four")
    found = why(project)
    assert found["encode_texts"] == found["train"] == ["caption of clips/cat.mp4 changed"]
    finish(project, "results/lora.safetensors")
    assert why(project) == {}
    project.caption("cat", "a cat, red, blue, green, large\na cat, one, two, three, five")
    assert why(project)["encode_texts"] == ["caption of clips/cat.mp4 changed"]
    (project.root / "ran.log").write_text("")
    finish(project, "results/lora.safetensors")
    lines = (project.root / "ran.log").read_text().splitlines()
    assert [line for line in lines if line.startswith("encode text")] == ["encode texts 3"]


def test_of_many_clips_the_first_are_named_and_the_rest_is_counted(project: QuickProject) -> None:
    for number in range(12):
        project.add_clip(f"hen{number:02}", "a cat that runs")
    found = why(project)
    assert len(found["train"]) == MOST_NAMED + 1
    assert [words for words in found["train"] if not words.startswith("new clip clips/hen")] == ["... and 7 more"]


def test_without_the_record_of_the_last_training(project: QuickProject) -> None:
    (project.root / "results/train/dataset.json").unlink()
    project.caption("cat", "a cat that sleeps")
    assert why(project)["train"] == ["the dataset changed"]


def test_a_record_of_another_training_is_not_believed(project: QuickProject) -> None:
    path = project.root / "results/train/dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"digest": "another"}))
    project.caption("cat", "a cat that sleeps")
    assert why(project)["train"] == ["the dataset changed"]


def test_a_name_that_is_not_utf8_can_be_told(project: QuickProject) -> None:
    project.add_clip("hen")
    for path in list(project.clips.glob("hen.*")):
        path.rename(path.with_stem(os.fsdecode(b"caf\xe9")))
    assert why(project)["train"] == ["new clip clips/caf\\udce9.mp4"]


# -- encoding -------------------------------------------------------------------------------------------------------


def test_before_anything_has_run(tmp_path: Path) -> None:
    found = why(QuickProject.make(tmp_path / "project"))
    counts = [int(words.split()[0]) for words in found["encode_latents"]]
    assert sum(counts) == len(CLIPS)
    assert all(words.endswith("clips are not encoded yet") for words in found["encode_latents"])
    assert all(words.endswith("captions are not encoded yet") for words in found["encode_texts"])
    assert found["train"] == found["sample_video.one"] == found["publish"] == ["not made yet"]


def test_other_settings_of_the_encoding(project: QuickProject) -> None:
    project.set(cache={"vae_sample_size": 128})
    found = why(project)
    assert found["encode_latents"] == ["cache.vae_sample_size 0 -> 128"] * 2
    assert found["train"] == ["cache.vae_sample_size 0 -> 128"]
    assert "encode_texts" not in found
    project.set(cache={"vae_sample_size": 0, "fp8_vl": True})
    found = why(project)
    assert found["encode_texts"] == ["cache.fp8_vl false -> true"] * 2
    assert found["train"] == ["cache.fp8_vl false -> true"]
    assert found["sample_latents.one"] == ["cache.fp8_vl false -> true", "the LoRA is trained again"]


def test_when_the_old_settings_are_not_known_any_more(project: QuickProject) -> None:
    shutil.rmtree(project.root / "results/manifests")
    project.set(cache={"vae_sample_size": 128})
    found = why(project)
    assert found["train"] == ["clips are encoded with other settings"]
    assert all(words.endswith("clips are not encoded yet") for words in found["encode_latents"])


def test_a_lost_store(project: QuickProject) -> None:
    shutil.rmtree(project.root / "cache/store/latents")
    assert why(project) == {}, "nothing reads them now"
    project.set(train={"seed": 7})
    opened = open_project(project)
    assert why(project)["encode_latents"] == [f"encoded clips were lost from {opened.latents.store.folder}"] * 2


def test_another_count_of_shards(project: QuickProject) -> None:
    """What is known is only listed again."""
    project.set(cache={"shards": 1}, train={"seed": 7})
    found = why(project)
    assert found["encode_latents"] == found["encode_texts"] == ["cache.shards is 1 now"]
    assert found["train"] == ["train.seed 42 -> 7"]


def test_lost_and_torn_manifests(project: QuickProject) -> None:
    shutil.rmtree(project.root / "results/manifests/text")
    for path in (project.root / "results/manifests/latents").rglob("*.json"):
        path.write_bytes(path.read_bytes()[:-20])
    found = why(project)
    assert set(found["encode_texts"]) == {"the list of the encoded captions was lost"}
    assert set(found["encode_latents"]) == {"the list of the encoded clips cannot be read"}
    assert "train" not in found


def test_a_training_that_failed(project: QuickProject) -> None:
    """Snakemake has removed the trained LoRA, and the published one still says what it was made from."""
    project.set(train={"seed": 7})
    (project.root / "results/train.safetensors").unlink()
    assert why(project)["train"] == ["train.seed 42 -> 7"]


def test_latents_that_were_made_alone(project: QuickProject) -> None:
    project.set(sample={"prompts": [{"name": "one", "prompt": "a red circle", "seed": 5}]})
    finish(project, "results/samples/one.latents.safetensors")
    found = why(project)
    assert "sample_latents.one" not in found
    assert [words for words in found["sample_video.one"] if "seed" in words and "-> 5" in words], found
