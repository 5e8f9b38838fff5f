"""The form that makes a sample again: what stands in it, and the command that it becomes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hv15.cli import parse
from hv15.commands.options.sample import Sample as SampleCommand
from tests.tui.data.test_sample_matrix import project, sampled
from tui.data.again import Again, FieldError
from tui.data.lora_names import NO_LORA, THIS_LORA, loras_of_project
from tui.data.samples import SamplesReader

MADE = {
    "negative_prompt": "-blurred",
    "steps": 30,
    "guidance_scale": 6.0,
    "flow_shift": 5.0,
    "height": 480,
    "width": 848,
    "frames": 121,
    "fps": 24.0,
}


def again(root: Path, name: str, **more: Any) -> Again:
    """The form of a sample that is made now."""
    path = sampled(root, name, **{**MADE, **more})
    reader = SamplesReader(root / "config.yaml")
    reader.refresh()
    found = next(each for each in reader.samples if each.path == path)
    return Again(found, root / "config.yaml", loras_of_project(root))


def asked(form: Again, **changes: str) -> SampleCommand:
    command = parse(form.command(replace(form.fields, **changes)))
    assert isinstance(command, SampleCommand)
    return command


@pytest.fixture
def root(tmp_path: Path) -> Path:
    project(tmp_path)
    (tmp_path / "results/train.safetensors").touch()
    return tmp_path


def test_as_it_stands_it_asks_for_the_same(root: Path) -> None:
    form = again(root, "results/samples/cat.mp4", lora_multiplier=0.8)
    assert form.note == form.others == ""
    command = asked(form)
    assert command.prompts == ("a cat",)
    assert (command.seed, command.steps, command.guidance, command.shift) == ((7,), 30, 6.0, 5.0)
    assert (command.size, command.frames, command.fps) == (("480", "848"), 121, 24.0)
    assert command.negative == "-blurred"
    assert command.lora == ("results/train.safetensors:0.8",)
    assert (command.project, command.out) == (root / "config.yaml", Path("results/again"))
    assert command.image is None
    assert form.title(form.fields) == "cat: as it was"


def test_what_is_changed_is_asked_for_and_named(root: Path) -> None:
    form = again(root, "results/samples/cat.mp4")
    changes = {"seed": "1, 2 3", "steps": "8", "strength": "-0.5", "size": "720p 9:16", "frames": "", "guidance": "1"}
    command = asked(form, prompt="--a dog", **changes)
    assert command.prompts == ("--a dog",)
    assert (command.seed, command.steps, command.frames, command.guidance) == ((1, 2, 3), 8, None, 1.0)
    assert command.size == ("1280", "720")
    assert command.lora == ("results/train.safetensors:-0.5",)
    assert asked(form, lora=NO_LORA).lora == ()
    title = form.title(replace(form.fields, seed="5", steps="8", prompt="a dog"))
    assert title == "cat: seed 5, 8 steps, another prompt"


@pytest.mark.parametrize(
    ("field", "typed", "words"),
    [
        ("prompt", "  ", "expected what the video shows"),
        ("seed", "1 x", "found 'x'"),
        ("seed", "-1", "at least 0"),
        ("steps", "0", "found '0'"),
        ("guidance", "high", "expected a number"),
        ("strength", "1e999", "number"),
        ("size", "big", "720p"),
        ("size", "481 848", "481"),
        ("frames", "8", "4k+1"),
    ],
)
def test_what_cannot_be_is_said_at_its_field(root: Path, field: str, typed: str, words: str) -> None:
    form = again(root, "results/samples/cat.mp4")
    with pytest.raises(FieldError) as refused:
        form.command(replace(form.fields, **{field: typed}))
    assert refused.value.name == field
    assert words in refused.value.message


def test_the_lora_of_a_step_is_taken_if_it_was_kept(root: Path) -> None:
    form = again(root, "results/train/previews/cat.step000400.mp4")
    assert "step 400" in form.note
    assert form.fields.lora == THIS_LORA
    kept = root / "results/train/checkpoints/lora-step000400.safetensors"
    kept.parent.mkdir(parents=True)
    kept.touch()
    form = again(root, "results/train/previews/cat.step000400.mp4")
    assert (form.note, form.fields.lora) == ("", "step 400")
    assert asked(form).lora == ("results/train/checkpoints/lora-step000400.safetensors:1",)


def test_other_loras_stay_and_an_image_too(root: Path) -> None:
    style = {"path": "loras/style.safetensors", "fingerprint": "f", "multiplier": 0.6}
    image = {"path": "first.png", "fingerprint": "f"}
    form = again(root, "results/samples/cat.base.mp4", lora_multiplier=None, loras=[style], image=image)
    assert form.others == "style at 0.6"
    assert form.fields.lora == NO_LORA
    command = asked(form)
    assert command.lora == ("loras/style.safetensors:0.6",)
    assert command.image == Path("first.png")
    assert asked(form, lora=THIS_LORA).lora == ("results/train.safetensors:1", "loras/style.safetensors:0.6")


def test_what_was_made_again_is_made_again_with_its_own_lora(root: Path) -> None:
    other = root / "loras/other.safetensors"
    lora = {"path": str(other), "fingerprint": "f", "multiplier": 0.9}
    name = "results/again/a-cat-seed9-0123abcd.mp4"
    form = again(root, name, lora_multiplier=None, loras=[lora])
    assert "other" in form.note
    other.parent.mkdir()
    other.touch()
    form = again(root, name, lora_multiplier=None, loras=[lora])
    assert (form.note, form.fields.lora, form.fields.strength) == ("", "other", "0.9")
    assert asked(form).lora == (f"{other}:0.9",)
