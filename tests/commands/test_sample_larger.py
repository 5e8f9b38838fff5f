"""`hv15 sample --sr`: each video, and beside it what super resolution makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from hv15.data.probe import probe
from hv15.project.metadata import product_metadata
from hv15.records.metadata import ENLARGED
from tests.commands.test_shard import Loads, loads  # noqa: F401  (a fixture)
from tests.commands.test_upsample import enlarging, spec_of  # noqa: F401  (a fixture)
from tests.commands.workbench import LORA, Said, Workbench

PROMPT = "a red circle"


@pytest.fixture
def bench(done: Workbench, enlarging: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Workbench:  # noqa: F811
    """A finished project that has models of super resolution; the working directory is the project."""
    done.set(models=enlarging, sample={"sr_steps": 2})
    monkeypatch.chdir(done.root)
    return done


def files(said: Said) -> list[Path]:
    assert said.code == 0, said.err
    words = [line.removesuffix(": already there") for line in said.err.splitlines()]
    return [Path(line) for line in words if line.startswith("out/")]


def test_both_are_made_and_once(bench: Workbench, loads: Loads) -> None:  # noqa: F811
    small, large = files(bench.hv15("sample", PROMPT, "--sr", "720p", "--seed", "3"))
    assert large.name.startswith(f"{small.stem}.sr-")
    assert [(info.width, info.height) for info in (probe(small, "video"), probe(large, "video"))] == [
        (64, 64),
        (96, 96),
    ]
    assert loads.counted == {"dit": 2, "vae": 2, "image_encoder": 0}, "each transformer once; the VAE for each size"
    assert ENLARGED in product_metadata(large)
    assert not Path("out/.unfinished").exists()
    stamps = [file.stat().st_mtime_ns for file in (small, large)]
    again = bench.hv15("sample", PROMPT, "--sr", "720p", "--seed", "3")
    assert again.err.count(": already there") == 2
    assert [file.stat().st_mtime_ns for file in (small, large)] == stamps


@pytest.mark.slow
def test_another_setting_of_it_makes_another_large_file_alone(bench: Workbench) -> None:
    """The latents of the small one were not kept, so they are made again; its video is not."""
    small, large = files(bench.hv15("sample", PROMPT, "--sr", "auto"))
    stamp = small.stat().st_mtime_ns
    same, other = files(bench.hv15("sample", PROMPT, "--sr", "auto", "--set", "sample.sr_steps=1"))
    assert (same, same.stat().st_mtime_ns) == (small, stamp)
    assert other != large
    assert large.exists()
    assert spec_of(other).steps == 1


@pytest.mark.slow
def test_latents_are_kept_as_asked_and_equal_those_of_the_command(bench: Workbench) -> None:
    _, small, _, large = files(bench.hv15("sample", PROMPT, "--sr", "auto", "--output-type", "both"))
    by_hand = Path("by-hand.latents.safetensors")
    bench.does("upsample", small, "-o", by_hand, "--steps", "2")
    assert_close(load_file(large)["latents"], load_file(by_hand)["latents"], atol=0, rtol=0)


@pytest.mark.slow
def test_the_projects_setting_is_the_default(bench: Workbench) -> None:
    bench.set(sample={"sr": "auto"})
    words = ("--output-type", "latent")  # to decode them takes longer
    assert len(files(bench.hv15("sample", PROMPT, *words))) == 2
    assert len(files(bench.hv15("sample", PROMPT, *words, "--sr", "off"))) == 1
    Path("prompts.yaml").write_text("- {name: a, prompt: a red circle, sr: off}\n- {name: b, prompt: a blue square}\n")
    assert len(files(bench.hv15("sample", "--prompts-file", "prompts.yaml", *words))) == 3


@pytest.mark.slow
def test_loras_are_for_the_small_one_unless_asked(bench: Workbench) -> None:
    weights = {key: torch.randn_like(value) for key, value in load_file(LORA).items()}
    save_file(weights, LORA, product_metadata(Path(LORA)))
    words = ("sample", PROMPT, "--sr", "auto", "--lora", LORA, "--output-type", "latent")
    _, large = files(bench.hv15(*words))
    _, with_lora = files(bench.hv15(*words, "--set", "sample.sr_with_loras=true"))
    assert [len(spec_of(file).loras) for file in (large, with_lora)] == [0, 1]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("-i", "--sr", "720p"), "one prompt after the other is sampled without super resolution"),
        (("--latents", "results/samples/one.latents.safetensors", "--sr", "720p"), "so --sr cannot be given"),
        ((PROMPT, "--sr", "1080p"), "is the latent upsampler for 720p, but sample.sr is 1080p"),
        ((PROMPT, "--sr", "720p", "--set", "sample.context_parallel=2"), "first use --sr off --output-type both"),
    ],
)
def test_what_cannot_be_done_is_refused(bench: Workbench, words: tuple[str, ...], named: str) -> None:
    said = bench.hv15("sample", *words)
    assert said.code == 2
    assert named in said.err
