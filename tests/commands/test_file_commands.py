"""`hv15 train`, `report` and the stages of a sample as a person calls them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from hv15.data.encode import read_video_metadata
from hv15.records.outputs import LATENTS
from hv15.records.paths import average_of
from hv15.train.state import locked
from tests.commands.workbench import LORA, Workbench, hv15, is_a_refusal

# -- training -------------------------------------------------------------------------------------------------------


@contextmanager
def another_training(project: Workbench) -> Iterator[None]:
    """The lock that a running training holds."""
    with locked(project.root / "results" / "train"):
        yield


def test_two_trainings_in_one_folder(done: Workbench) -> None:
    whole = (done.root / LORA).read_bytes()
    words = ("train", "--spec", done.spec("train"), "--out", done.root / LORA)
    with another_training(done):
        done.refuses(*words, naming=("results/train: another training is running here",))
    done.does(*words)
    assert (done.root / LORA).read_bytes() == whole


def test_a_folder_of_other_files_is_not_taken_for_a_training(done: Workbench) -> None:
    """The training folder is named after nothing but its place, so it may be somebody's dataset."""
    (done.root / "train").mkdir()
    (done.root / "train" / "clip.mp4").write_bytes(b"mine")
    done.refuses("train", "--out", done.root / "lora.safetensors", naming=("/train: ", "other files (first clip.mp4)"))


@pytest.mark.parametrize("content", [None, "", "[]", "\udcff"])
def test_a_training_spec_that_is_none(done: Workbench, content: str | None) -> None:
    spec = done.root / "spec.json"
    if content is not None:
        spec.write_bytes(content.encode("utf-8", "surrogateescape"))
    done.refuses("train", "--spec", spec, "--out", done.root / "results/x.safetensors", naming=("spec.json",))


def test_training_before_encoding(project: Workbench) -> None:
    words = ("train", "--out", project.root / "results/x.safetensors")
    project.refuses(*words, naming=("3 of 3 latents are not encoded yet", "snakemake"))


@pytest.mark.slow
def test_a_training_with_validation_and_average(done: Workbench) -> None:
    """A clip of the project is held out; its latents are there already."""
    asked = {"fraction": 0.3, "every_n_steps": 1, "at_first": True, "samples": 2, "keep_best": True}
    done.set(train={"validation": asked, "ema_decay": 0.5})
    said = done.hv15("check").out
    assert "1 file not trained on: clips/" in said
    done.train()
    lines = [json.loads(line) for line in done.paths.metrics.read_text().splitlines()]
    found = [line for line in lines if line["kind"] == "validation"]
    assert [line["step"] for line in found] == [0, *(line["step"] for line in lines if line["kind"] == "step")]
    assert all(line["loss"] > 0 and line["trained_loss"] > 0 for line in found)
    best = max(line["step"] for line in found if line["is_best"])
    assert f"hv15.steps: {best}" in hv15("show", done.paths.best).out
    assert average_of(done.root / LORA).exists()
    assert (done.paths.curves / "loss.svg").exists()


def test_a_training_that_diverges_keeps_what_was_saved(done: Workbench) -> None:
    done.set(train={"learning_rate": 1e30, "max_train_steps": 4})
    words = ("train", "--out", done.root / "results/x.safetensors")
    said = done.hv15(*words)
    is_a_refusal(said, ("diverged", "train.learning_rate"))
    assert not (done.root / "results/x.safetensors").exists()
    assert (done.root / LORA).exists()


@pytest.mark.parametrize(
    ("change", "naming"),
    [
        ({"include_patterns": ["nothing"]}, "'nothing' matches none of the"),
        ({"optimizer_args": {"weight_decy": 1}}, "weight_decy: AdamW has no such argument; did you mean weight_decay"),
        ({"optimizer_args": {"betas": [2, 3]}}, "Invalid beta parameter"),
        ({"optimizer_type": "Muon", "optimizer_args": {"ns_steps": "many"}}, "ns_steps: found 'many', expected"),
    ],
)
def test_settings_that_only_training_can_judge(done: Workbench, change: dict[str, object], naming: str) -> None:
    done.set(train=change)
    done.refuses("train", "--out", done.root / "results/another.safetensors", naming=(naming,))


# -- samples --------------------------------------------------------------------------------------------------------


def decode(done: Workbench, latents: Path, out: Path, *, spec: Path | None = None) -> tuple[str | Path, ...]:
    return ("stage", "decode", "--spec", spec or done.spec("sample_video.one"), "--latents", latents, "--out", out)


def test_latents_alone_become_a_video_or_images(done: Workbench) -> None:
    """The way from a latents file to pictures needs no transformer, no text encoder and no LoRA."""
    (done.root / LORA).unlink()
    shutil.rmtree(done.root / "cache" / "store")
    latents, again = done.samples / "one.latents.safetensors", done.root / "again.mp4"
    done.does(*decode(done, latents, again))
    assert again.read_bytes() == (done.samples / "one.mp4").read_bytes()
    assert "a red circle" in json.dumps(read_video_metadata(again))
    done.does(*decode(done, latents, done.root / "frames"))
    with av.open(str(again)) as container:
        assert len(list(container.decode(video=0))) == 5
    assert [Image.open(path).size for path in sorted((done.root / "frames").iterdir())] == [(64, 64)] * 5


def test_a_wrong_latents_file_is_told_in_a_few_words(done: Workbench) -> None:
    said = done.refuses(*decode(done, done.root / LORA, done.root / "x.mp4"), naming=(".alpha (0 axes), ", " more; "))
    assert said.err.count("lora_unet_") == 3


@pytest.mark.slow
def test_images_replace_images_and_nothing_else(done: Workbench) -> None:
    latents = done.samples / "one.latents.safetensors"
    for _ in range(2):
        done.does(*decode(done, latents, done.root / "frames"))
    done.refuses(*decode(done, latents, done.clips), naming=("/clips: holds other files (first ",))
    done.refuses(*decode(done, latents, done.root / "one.webm"), naming=("one.webm: samples are written as .mp4",))
    done.refuses(*decode(done, latents, done.root / LORA), naming=("expected a folder, found a file",))


def test_decoding_refuses(done: Workbench) -> None:
    latents, out, spec = done.samples / "one.latents.safetensors", done.samples / "one.mp4", done.root / "x.json"
    torn, nan, foreign = (done.root / f"{name}.safetensors" for name in ("torn", "nan", "foreign"))
    torn.write_bytes(latents.read_bytes()[:-8])
    save_file({"latents": torch.full((32, 2, 4, 4), torch.nan)}, nan)
    save_file({"latents": torch.zeros(32, 2, 4, 4)}, foreign)
    for file, naming in (
        (done.root / "gone.safetensors", "gone.safetensors: not readable"),
        (torn, "torn.safetensors: not readable"),
        (nan, "NaN"),
        (foreign, "does not say how the latents were made"),
        (done.root / LORA, "expected latents (4 axes)"),
    ):
        done.refuses(*decode(done, file, out), naming=(naming,))
    done.refuses(*decode(done, latents, out, spec=spec), naming=("x.json: not usable as a spec",))
    for content in ("[]", "{}", '{"name": "one"}', "oops"):
        spec.write_text(content)
        done.refuses(*decode(done, latents, out, spec=spec), naming=("x.json: not usable as a spec",))
    for stage in ("train", "sample_latents.one"):
        naming = (f"{stage}.json: not the spec of a decoded sample",)
        done.refuses(*decode(done, latents, out, spec=done.spec(stage)), naming=naming)


def test_what_a_sample_says_and_was_planned_from(done: Workbench) -> None:
    """By the planner's specs and by the name alone: the same files."""
    planned, named = LATENTS.path(done.paths, "one"), done.root / "named.safetensors"
    done.does("stage", "denoise", "--name", "one", "--lora", done.root / LORA, "--out", named)
    assert named.read_bytes() == planned.read_bytes()


def test_denoising_refuses(done: Workbench) -> None:
    spec, out = done.spec("sample_latents.one"), done.samples / "one.latents.safetensors"
    words = ("stage", "denoise", "--spec", spec, "--out", out)
    done.refuses(*words, "--lora", done.root / "gone.safetensors", naming=("gone.safetensors", "no such file"))
    content = json.loads(spec.read_text())
    content["details"]["sample"]["task"] = "i2v"
    (done.root / "i2v.json").write_text(json.dumps(content))
    words = ("stage", "denoise", "--spec", done.root / "i2v.json", "--out", out)
    done.refuses(*words, naming=("needs its encoded first frame", "--condition"))
    words = ("stage", "condition", "--spec", spec, "--out", done.root / "x.safetensors")
    done.refuses(*words, naming=("sample_latents.one.json: not the spec of a first image",))
    words = ("stage", "condition", "--name", "one", "--out", done.root / "x.safetensors")
    done.refuses(*words, naming=("a t2v sample has no first frame",))
    words = ("stage", "denoise", "--out", done.root / "x.safetensors")
    done.refuses(*words, "--name", "two", naming=("no sample is called two; there are: one",))
    done.refuses(*words, naming=("neither --spec nor --name is given",))
    prompt = next(path for path in done.items("text") if b"a red circle" in path.read_bytes())
    prompt.unlink()
    words = ("stage", "denoise", "--spec", spec, "--out", out)
    done.refuses(*words, naming=(prompt.name, "is missing", "start the run again"))


@pytest.mark.parametrize("image", [None, b"", b"no image", "folder"])
def test_the_first_image_of_a_sample(project: Workbench, image: bytes | str | None) -> None:
    path = project.root / "first.png"
    if image == "folder":
        path.mkdir()
    elif isinstance(image, bytes):
        path.write_bytes(image)
    prompt = {"name": "one", "prompt": "a red circle", "image_path": "first.png"}
    project.set(task="i2v", sample={"prompts": [prompt]})
    words = ("stage", "condition", "--name", "one", "--out", project.root / "x.safetensors")
    project.refuses(*words, naming=("first.png",))
    assert "first.png" in project.hv15("check").out


def test_an_image_that_changes_after_planning(project: Workbench) -> None:
    Image.new("RGB", (64, 64)).save(project.root / "first.png")
    prompt = {"name": "one", "prompt": "a red circle", "image_path": "first.png"}
    project.set(task="i2v", sample={"prompts": [prompt]})
    spec, out = project.spec("sample_condition.one"), project.root / "x.safetensors"
    project.plan()
    Image.new("RGB", (64, 64), "white").save(project.root / "first.png")
    os.utime(project.root / "first.png")
    words = ("stage", "condition", "--spec", spec, "--out", out)
    project.refuses(*words, naming=("first.png: changed since one was planned",))
