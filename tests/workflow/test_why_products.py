"""Why samples and other products have to be made again, in words that a person can act on."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from hv15.records.rules import rule_words
from hv15.workflow import make_planner
from hv15.workflow.why import Reasons
from tests.workflow.finished import ONE, TWO, finish, open_project, why
from tests.workflow.quick import QuickProject


@pytest.fixture
def project(finished: QuickProject, tmp_path: Path) -> QuickProject:
    """A finished project of one's own."""
    copied = finished.copied(tmp_path / "project", everything=True)
    assert why(copied) == {}
    return copied


# -- samples --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (
            {"prompt": "a green square"},
            {
                "encode_texts": ["new text of sample one"],
                "sample_latents.one": ["prompt 'a red circle' -> 'a green square'"],
                "sample_video.one": ["it is sampled again"],
            },
        ),
        (
            {"seed": 5, "infer_steps": 2},
            {
                "sample_latents.one": ["infer_steps 1 -> 2", "seed 123 -> 5"],
                "sample_video.one": ["it is sampled again"],
            },
        ),
        (
            {"video_size": [64, 80], "video_length": 9},
            {
                "sample_latents.one": ["video_length 5 -> 9", "video_size, width 64 -> 80"],
                "sample_video.one": ["it is sampled again"],
            },
        ),
        ({"fps": 12}, {"sample_video.one": ["fps 24.0 -> 12.0"]}),
        ({"lora_multiplier": 0.5}, {"sample_latents.one": ["lora_multiplier 1.0 -> 0.5"]}),
    ],
    ids=str,
)
def test_a_prompt(project: QuickProject, prompt: dict[str, object], words: dict[str, list[str]]) -> None:
    project.set_prompts({**ONE, **prompt})
    found = why(project)
    assert found == {"sample_video.one": ["it is sampled again"], **words, "publish": ["one is new"]}


def test_a_new_prompt(project: QuickProject) -> None:
    project.set_prompts(ONE, TWO)
    assert why(project) == {
        "encode_texts": ["new text of sample two"],
        "sample_latents.two": ["not made yet"],
        "sample_video.two": ["not made yet"],
        "contact_sheet": ["not made yet"],
        "publish": ["contact sheet is new", "two is new"],
    }


def test_a_lora_beside_the_trained_one(project: QuickProject) -> None:
    project.add_lora("style.safetensors")
    project.set_prompts({**ONE, "loras": [{"path": "style.safetensors"}]})
    assert why(project)["sample_latents.one"] == ["other LoRAs besides the trained one"]


def test_a_sample_of_a_lora_that_was_trained_alone(project: QuickProject) -> None:
    project.set(train={"seed": 7})
    finish(project, "results/train.safetensors")
    found = why(project)
    assert "train" not in found
    assert found["sample_latents.one"] == ["it was made with another LoRA"]
    assert found["sample_video.one"] == ["it is sampled again"]


def test_a_sample_without_the_lora_stays(project: QuickProject) -> None:
    project.set(sample={"with_base": True})
    finish(project)
    project.set(train={"seed": 7})
    found = why(project)
    assert [name for name in found if "base" in name] == []
    assert found["contact_sheet"] == ["one is new"]


def test_the_first_image_of_a_sample(project: QuickProject) -> None:
    Image.new("RGB", (64, 64)).save(project.root / "first.png")
    project.set(task="i2v")
    project.set_prompts({**ONE, "image_path": "first.png"})
    found = why(project)
    assert found["train"] == ["another file for models.image_encoder", "task t2v -> i2v"]
    assert found["sample_condition.one"] == ["not made yet"]
    finish(project)
    assert why(project) == {}
    Image.new("RGB", (64, 64), "white").save(project.root / "first.png")
    assert why(project) == {
        "sample_condition.one": ["another first image"],
        "sample_latents.one": ["another first image"],
        "sample_video.one": ["it is sampled again"],
        "publish": ["one is new"],
    }
    project.set_prompts({**ONE, "image_path": "first.png", "video_size": [64, 80]})
    found = why(project)
    assert found["sample_latents.one"] == ["another first image", "video_size, width 64 -> 80"]


# -- files that are lost or torn ------------------------------------------------------------------------------------


def test_a_lost_and_a_torn_video(project: QuickProject) -> None:
    video = project.root / "results/samples/one.mp4"
    content = video.read_bytes()
    video.write_bytes(content[:-7])
    assert why(project) == {"sample_video.one": ["one.mp4 cannot be read"], "publish": ["one is new"]}
    video.unlink()
    assert why(project) == {"sample_video.one": ["not made yet"], "publish": ["one is new"]}


def test_a_conversion(project: QuickProject) -> None:
    project.set(convert={"formats": ["comfyui"]})
    assert why(project) == {"convert.comfyui": ["not made yet"], "publish": ["comfyui is new"]}
    finish(project)
    project.set(convert={"title": "My style"})
    assert why(project) == {"convert.comfyui": ["convert: says something else about it"], "publish": ["comfyui is new"]}
    finish(project)
    project.set(train={"seed": 7})
    assert why(project)["convert.comfyui"] == ["the LoRA is trained again"]


def test_damaged_model_files_of_the_demo(project: QuickProject) -> None:
    model = project.root / "models/demo/vae.safetensors"
    model.write_bytes(model.read_bytes()[:-7])
    assert why(project) == {"demo_models": ["the model files changed"]}


def test_only_what_is_asked_for(project: QuickProject) -> None:
    project.set(train={"seed": 7})
    assert why(project, "results/train.safetensors") == {"train": ["train.seed 42 -> 7"]}


# -- titles ---------------------------------------------------------------------------------------------------------


def test_each_stage_is_told_by_what_it_does(project: QuickProject) -> None:
    project.set(cache={"vae_sample_size": 128})
    opened = open_project(project)
    reasons = Reasons(opened, make_planner(opened))
    titles = {stage.name: stage.title for stage in reasons.due().stages}
    assert titles["encode_latents.1"] == "encode clips, shard 1 of 2"
    assert titles["train"] == "train the LoRA"
    assert titles["sample_video.one"] == "decode to video one"
    assert reasons.sentence("train") == "cache.vae_sample_size 0 -> 128"
    assert reasons.sentence("encode_texts.0") == "", "it does not have to run"


def test_every_rule_has_a_title(project: QuickProject) -> None:
    rules = {stage.rule for stage in make_planner(open_project(project)).stages.values()}
    assert [rule for rule in rules if rule_words(rule) == rule.replace("_", " ")] == []
