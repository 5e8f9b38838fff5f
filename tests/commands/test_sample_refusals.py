"""`hv15 sample` refuses what it cannot do, in words and before a model is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hv15.records.outputs import LATENTS
from tests.commands.sampling import SMALL
from tests.commands.workbench import Workbench, is_a_refusal


def test_a_wrong_value_is_named_by_the_option_that_was_typed(done: Workbench) -> None:
    said = done.hv15("sample", "a red circle", "--frames", "6", "--steps", "0", "--set", "sample.vae_tile_size=x")
    assert "--frames: 6 frames: the VAE needs 4k+1" in said.err
    assert "--steps: found 0, expected at least 1" in said.err
    assert "sample.video_length" not in said.err
    assert "--set sample.vae_tile_size" in said.err
    assert "--set sample.video_length: 6" in done.hv15("sample", "a", "--set", "sample.video_length=6").err


def test_what_is_wrong_with_the_prompt_is_said_so_and_once(done: Workbench) -> None:
    is_a_refusal(done.hv15("sample", " ", *SMALL), ("error: prompt: found '', expected some text",))
    said = done.hv15("sample", "a", "b", "--size", "100", "100")
    assert said.err.count("--size: 100 pixels: must be a multiple of 16") == 1


@pytest.fixture
def refusals(done: Workbench, tmp_path: Path) -> Iterator[None]:
    before = done.files()
    yield
    done.still_has(before)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--size", "7p"), "7p: expected a resolution"),
        (("--strength", "nan"), "'nan': expected a finite number"),
        (("--steps", "0"), "--steps: found 0"),
        (("--frames", "6"), "--frames: "),
        (("--lora", "nothing.safetensors"), "nothing.safetensors: no such file"),
        (("--lora", "/"), "error: --lora /: a folder"),
        (("--set", "quantize"), "expected NAME=VALUE"),
        (("--set", "sample.quantise=fp8"), "quantise"),
        (("--set", "sample.seed=[1"), "--set"),
        (("--image", "nothing.png"), "error: --image: is set, but task is t2v"),
        (("--lora", "x.safetensors", "--include", "(["), "error: --include: '([' is not a regular expression"),
        (("--lora-blocks", "0-19"), "'0-19': expected blocks and a factor such as 0-19:0.5"),
        (("--lora-blocks", "a-b:1"), "expected blocks"),
        (("--lora-steps", "0.5:0"), "expected a part of the steps"),
        (("--lora-steps", "0-1:nan"), "expected a part of the steps"),
        (("--lora", "x.safetensors", "--lora-steps", "0.5-0.2:0"), "expected the begin before the end"),
        (("--prompts-file", "nothing.txt"), "--prompts-file: there is no file"),
        (("--strength", "0.5"), "--strength without a LoRA"),
        (("--compare", "nothing.safetensors"), "nothing.safetensors: no such file"),
        (("--steps", "2", "--set", "sample.zero_init_steps=2"), "zero_init_steps is 2 of 2 steps"),
        (("--checkpoint", "12345"), "--checkpoint 12345: the LoRA after that step is not kept"),
        (("--set", "sample.sage_blocks=[0, 1]"), "sage_blocks: sage runs only on GPUs, not on cpu"),
        (("--set", "sample.attn_mode=xformers"), "attn_mode: xformers runs only on GPUs, not on cpu"),
        (
            ("--set", "sample.compile=true", "sample.compile_backend=x"),
            "compile_backend: torch knows no 'x' here",
        ),
    ],
)
def test_bad_words_are_refused(
    done: Workbench, tmp_path: Path, refusals: None, words: tuple[str, ...], named: str
) -> None:
    said = done.hv15("sample", "a red circle", *SMALL, *words, "-o", tmp_path / "out")
    assert said.code == 2
    assert named in said.err
    assert "Traceback" not in said.err


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(
    done: Workbench, tmp_path: Path, loads: dict[str, int]
) -> None:
    (tmp_path / "out").touch()
    for folder in (tmp_path / "out", tmp_path / "out" / "below"):
        said = done.hv15("sample", "a red circle", *SMALL, "-o", folder)
        is_a_refusal(said, (str(folder),))
    is_a_refusal(done.hv15("sample", "-i", "-o", tmp_path / "out"), (str(tmp_path / "out"),))
    kept = ("--latents", LATENTS.path(done.paths, "one"))
    is_a_refusal(done.hv15("sample", *kept, "-o", tmp_path / "out"), (str(tmp_path / "out"),))
    assert not any(loads.values())


def test_what_is_needed_at_the_end_is_checked_at_the_beginning(
    done: Workbench, tmp_path: Path, loads: dict[str, int]
) -> None:
    """A file that is no VAE, and a sheet of samples that nobody can look at."""
    words, no_vae = ("sample", *SMALL, "-o", tmp_path / "out"), Path(done.config["models"]["dit"])
    for more in (("a red circle",), ("-i",)):
        is_a_refusal(done.hv15(*words, *more, "--vae", no_vae), ("not the VAE of HunyuanVideo 1.5",))
    said = done.hv15(*words, "a red circle", "--output-type", "latent", "--sheet")
    is_a_refusal(said, ("a sheet shows videos or images",))
    assert not any(loads.values())
