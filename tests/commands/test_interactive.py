"""`hv15 sample -i`: models stay, errors and Ctrl-C end a sample and not the session."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from hv15 import models
from hv15.commands.interactive import LONGEST
from hv15.data.pixels import Pixels
from hv15.models import load_dit, load_text_encoder, load_vae
from hv15.sample import sampler
from tests.commands.sampling import SMALL, spec_of
from tests.commands.workbench import LORA, Said, Workbench, is_a_refusal

Talk = Callable[..., Said]
LATENTS = (*SMALL, "--output-type", "latent")
"""Where it does not matter what is decoded."""


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often each model is loaded."""
    counted = {"dit": 0, "vae": 0, "text": 0}

    def counting(name: str, load: Any) -> Any:
        def loaded(*words: Any, **named: Any) -> Any:
            counted[name] += 1
            return load(*words, **named)

        return loaded

    monkeypatch.setattr("hv15.models.ready.load_dit", counting("dit", load_dit))
    monkeypatch.setattr("hv15.sample.decode.load_vae", counting("vae", load_vae))
    monkeypatch.setattr(models, "load_text_encoder", counting("text", load_text_encoder))
    return counted


@pytest.fixture
def talk(done: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Talk:
    """Say lines to a session, through a pipe."""

    def talk(*lines: str | bytes, words: tuple[str | Path, ...] = SMALL) -> Said:
        data = b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
        return done.hv15("sample", "-i", *words, "-o", tmp_path / "out")

    return talk


def files(said: Said) -> list[Path]:
    return [Path(line) for line in said.out.splitlines()]


def test_models_are_loaded_once_and_the_videos_are_those_of_the_command(
    talk: Talk, done: Workbench, tmp_path: Path, loads: dict[str, int]
) -> None:
    said = talk("a green circle", "", "/seed 5 6", "a red square", "/seed", "/steps 3", "/again")
    assert said.code == 0, said.err
    assert loads == {"dit": 1, "vae": 1, "text": 1}
    specs = [spec_of(file) for file in files(said)]
    seed = done.project.settings.sample.seed
    assert [(spec.prompt, spec.seed, spec.steps) for spec in specs] == [
        ("a green circle", seed, 2),
        ("a red square", 5, 2),
        ("a red square", 6, 2),
        ("a red square", seed, 3),
    ]
    assert sorted(tmp_path.joinpath("out").iterdir()) == sorted(files(said))  # nothing else is left
    direct = done.hv15("sample", "a red square", *SMALL, "--seed", "5", "-o", tmp_path / "direct")
    assert direct.code == 0
    (file,) = tmp_path.joinpath("direct").iterdir()
    assert file.name == files(said)[1].name
    assert file.read_bytes() == files(said)[1].read_bytes()
    loaded = dict(loads)
    again = talk("a green circle")
    assert files(again) == files(said)[:1]
    assert "already there" in again.err
    assert loads == loaded


def test_settings_of_a_session(talk: Talk, done: Workbench, tmp_path: Path) -> None:
    lora = tmp_path / "a style.safetensors"
    lora.write_bytes((done.root / LORA).read_bytes())
    said = talk(
        "/size 480p 1:1",
        "/size 64 80",
        "/frames 9",
        "/guidance 2.5",
        "/shift 3",
        "/negative red, blue",
        f"/lora '{lora}':0.5 {done.root / LORA}",
        "/settings",
        "one",
        *("/size", "/frames", "/guidance", "/shift", "/negative", "/lora"),
        " /two",
        words=LATENTS,
    )
    assert said.code == 0, said.err
    first, second = (spec_of(file) for file in files(said))
    assert (first.height, first.width, first.frames, first.guidance_scale, first.flow_shift) == (64, 80, 9, 2.5, 3.0)
    assert first.negative_prompt == "red, blue"
    assert [(Path(each.path).name, each.multiplier) for each in first.loras] == [
        ("a style.safetensors", 0.5),
        (Path(LORA).name, 1.0),
    ]
    sample = done.project.settings.sample
    assert (second.prompt, second.loras) == ("/two", ())
    assert (second.height, second.width) == tuple(sample.video_size)
    assert (second.frames, second.guidance_scale) == (sample.video_length, sample.guidance_scale)
    assert "video_size: [64, 80]" in said.err


WRONG: tuple[tuple[str | bytes, str], ...] = (
    ("/nonsense", "/nonsense: there is no such command"),
    ("/frames 6", "/frames: 6 frames: the VAE needs 4k+1"),
    ("/frames six", "/frames six: expected a whole number"),
    ("/steps 0", "/steps: found 0"),
    ("/size 7p", "error: /size 7p: expected a resolution"),
    ("/guidance much", "/guidance much: expected a number"),
    ("/guidance nan", "/guidance: "),
    ("/seed -1", "/seed -1: expected a whole number"),
    ("/seed 9999999999999999999", "/seed: "),
    ("/lora nothing.safetensors", "nothing.safetensors: no such file"),
    ("/lora 'open", "no closing quotation"),
    ("/image a b", "expected one file"),
    ("/image nothing.png", "task is t2v"),
    ("/again", "there was no prompt yet"),
    ("x" * (LONGEST + 5), "a line of more than"),
    (b"a \xff circle", "is not UTF-8"),
    ("a \0 circle", "NUL"),
)
"""A line, and what is said of it."""


def test_errors_are_one_line_each_and_change_nothing(talk: Talk, done: Workbench) -> None:
    found = talk(*(line for line, _ in WRONG), "a red circle", words=LATENTS)
    assert found.code == 2
    errors = [each for each in found.err.splitlines() if "error" in each]
    assert len(errors) == len(WRONG), found.err
    for error, (_, said) in zip(errors, WRONG, strict=True):
        assert error.startswith("error: ")
        assert said in error
    assert "Traceback" not in found.err
    (file,) = files(found)
    sample, spec = done.project.settings.sample, spec_of(file)
    assert (spec.prompt, spec.seed, spec.steps, spec.frames) == ("a red circle", sample.seed, 2, 5)
    assert (spec.height, spec.width, spec.loras, spec.image) == (64, 64, (), None)
    assert spec.guidance_scale == sample.guidance_scale


def test_a_lora_that_does_not_fit_ends_one_sample(talk: Talk, tmp_path: Path, loads: dict[str, int]) -> None:
    wrong = tmp_path / "wrong.safetensors"
    save_file(
        {"transformer.none.lora_A.weight": torch.zeros(2, 4), "transformer.none.lora_B.weight": torch.zeros(4, 2)},
        wrong,
    )
    said = talk("a red circle", f"/lora {wrong}", "/again", "/lora", "/seed 4", "/again", words=LATENTS)
    assert said.code == 2
    assert [spec_of(file).seed for file in files(said)][1:] == [4]
    assert said.err.count("error: ") == 1
    assert loads["dit"] == 1


def test_ctrl_c_stops_a_sample_after_its_step(
    talk: Talk, loads: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = _interrupted(monkeypatch, at={1})
    said = talk("a red circle", "a blue square", words=(*SMALL[:-1], "4"))
    assert said.code == 2
    assert "stopping after this step" in said.err
    assert said.err.count("\nstopped\n") == 1
    assert [spec_of(file).prompt for file in files(said)] == ["a blue square"]
    assert steps == [1, 1, 2, 3, 4]
    assert loads["dit"] == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_stops_at_once_and_the_models_are_loaded_anew(
    talk: Talk, loads: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    _interrupted(monkeypatch, at={1}, times=2)
    said = talk("a red circle", "a blue square", words=LATENTS)
    assert [spec_of(file).prompt for file in files(said)] == ["a blue square"]
    assert loads["dit"] == 2


def _interrupted(monkeypatch: pytest.MonkeyPatch, at: set[int], times: int = 1) -> list[int]:
    """Press Ctrl-C in the first sample, as often as that, and note the steps that are done."""
    done: list[int] = []
    run = sampler.run

    def pressed(*words: Any, after_step: Callable[[int], None], **named: Any) -> torch.Tensor:
        def step(number: int) -> None:
            done.append(number)
            if number in at and len(done) == 1:
                for _ in range(times):
                    os.kill(os.getpid(), signal.SIGINT)
            after_step(number)

        return run(*words, after_step=step, **named)

    monkeypatch.setattr(sampler, "run", pressed)
    return done


@pytest.mark.slow
def test_when_memory_runs_out_other_models_make_room(
    talk: Talk, loads: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, failed = sampler.run, list[bool]()

    def full(*words: Any, **named: Any) -> torch.Tensor:
        if not failed:
            failed.append(True)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(*words, **named)

    monkeypatch.setattr(sampler, "run", full)
    said = talk("a green circle", "a green square")
    assert said.code == 0, said.err
    assert len(files(said)) == 2
    assert "a model makes room" in said.err
    assert loads == {"dit": 1, "vae": 1, "text": 2}


def test_memory_that_is_not_enough_for_one_model_is_an_error(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*words: Any, **named: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nmore words")

    monkeypatch.setattr(sampler, "run", full)
    said = talk("a green circle")
    assert (said.code, said.out) == (2, "")
    assert "error: out of memory: CUDA out of memory. Tried to allocate 9 GiB (" in said.err


@pytest.mark.slow
def test_an_image_is_encoded_once(talk: Talk, done: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(done.config["models"]["vae"]).parent
    done.set(task="i2v", models={"image_encoder": str(folder / "siglip.safetensors")})
    Image.fromarray(np.full((80, 80, 3), 90, np.uint8)).save(tmp_path / "first.png")
    encoded, load = list[object](), models.load_image_encoder

    def loaded(*words: Any, **named: Any) -> Any:
        encoded.append(words)
        return load(*words, **named)

    monkeypatch.setattr("hv15.sample.condition.load_image_encoder", loaded)
    said = talk("without an image", f"/image {tmp_path / 'first.png'}", "a red circle", "a blue square")
    assert [spec_of(file).task for file in files(said)] == ["i2v", "i2v"]
    assert "i2v starts from an image" in said.err
    assert len(encoded) == 1
    assert {file.suffix for file in tmp_path.joinpath("out").iterdir()} == {".mp4"}


def test_a_session_that_cannot_begin(talk: Talk, done: Workbench) -> None:
    is_a_refusal(talk("a", words=("--sheet",)), ("-i makes one sample after the other",))
    is_a_refusal(talk("a", words=("--set", "sample.context_parallel=2")), ("works on one GPU",))
    said = talk("a", words=("--frames", "6"))
    assert said.code == 2
    assert "6 frames" in said.err


def test_prompts_of_the_command_line_come_first_and_quit_ends(talk: Talk) -> None:
    said = talk("two", "/quit", "three", words=("/one", *LATENTS, "--guidance", "1", "--steps", "1"))
    assert [spec_of(file).prompt for file in files(said)] == ["/one", "two"]


@pytest.mark.usefixtures("few_pictures")
def test_the_terminal_shows_what_a_sample_becomes(talk: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The video is the same with and without pictures; each is of a few frames."""
    shown: list[tuple[tuple[int, ...], str]] = []

    def show(frames: Pixels, label: str) -> None:
        assert frames.dtype == "uint8"
        shown.append((frames.shape, label))

    (plain,) = files(talk("a red circle", "/previews 0", "/again"))[:1]
    before = plain.read_bytes()
    plain.unlink()
    monkeypatch.setattr("hv15.commands.interactive.has_colors", lambda stream: True)
    monkeypatch.setattr("hv15.commands.interactive.show_frames", show)
    monkeypatch.setattr("hv15.commands.resident.show_frames", show)
    (again,) = files(talk("/steps 2", "/previews 1", "a red circle"))
    assert again.name == plain.name
    assert again.read_bytes() == before
    (running, first), (finished, last) = shown
    assert first.endswith("after step 1 of 2")
    assert last == "a red circle"
    assert running[-1] == finished[-1] == 3
    assert not (tmp_path / "out/.running").exists()
