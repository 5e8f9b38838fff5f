"""`hv15 sample --latents`: latents of samples are decoded later, with the VAE alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hv15.project.metadata import product_metadata
from hv15.records.json_values import parse_object
from hv15.records.metadata import LORAS, MADE_FROM
from hv15.records.outputs import LATENTS, VIDEO
from hv15.sample.contact_sheet import read_sample
from tests.commands.sampling import SMALL, made, spec_of
from tests.commands.workbench import LORA, Workbench, hv15, is_a_refusal


def test_kept_latents_need_only_the_vae(done: Workbench, tmp_path: Path, loads: dict[str, int]) -> None:
    """What is made of them are the workflow's own bytes, with its provenance."""
    kept, made_before = LATENTS.path(done.paths, "one"), VIDEO.path(done.paths, "one")
    words = ("sample", "--latents", kept, "-o", tmp_path / "out")
    (file,) = made(done.hv15(*words))
    assert file == tmp_path / "out" / "one.mp4"
    assert file.read_bytes() == made_before.read_bytes()
    assert loads == {"dit": 0, "vae": 1}
    assert "already there" in done.hv15(*words).err
    assert loads == {"dit": 0, "vae": 1}
    (slower,) = made(done.hv15(*words, "--fps", "12"))
    assert slower == file
    assert spec_of(slower).fps == 12
    (frames,) = made(done.hv15(*words, "--latent_path", kept, "--output-type", "images"))
    assert len(list(frames.glob("*.png"))) == spec_of(file).frames
    again = product_metadata(frames)
    assert parse_object(again[MADE_FROM])["latents"] == parse_object(product_metadata(kept)[MADE_FROM])
    assert again[LORAS] == product_metadata(kept)[LORAS]
    (other,) = made(done.hv15(*words, "--set", "sample.vae_sample_size=128", "sample.vae_tile_overlap=0.5"))
    assert (spec_of(other).vae_sample_size, spec_of(other).vae_tile_overlap) == (128, 0.5)


def test_kept_latents_without_a_project(done: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, vae = LATENTS.path(done.paths, "one"), done.project.models.path("vae")
    monkeypatch.chdir(tmp_path)
    (file,) = made(hv15("sample", "--latents", kept, "--vae", vae))
    assert file.read_bytes() == VIDEO.path(done.paths, "one").read_bytes()
    is_a_refusal(hv15("sample", "--latents", kept), ("config.yaml: does not exist", "--vae"))
    words = ("--set", "runtime.device=cpu", "sample.vae_sample_size=128", "sample.vae_seamless_tiles=true")
    (other,) = made(hv15("sample", "--latents", kept, "--vae", vae, *words, "-o", "other"))
    assert (spec_of(other).vae_sample_size, spec_of(other).vae_seamless_tiles) == (128, True)
    is_a_refusal(hv15("sample", "--latents", kept, "--vae", "gone.safetensors"), ("gone.safetensors",))


@pytest.mark.slow
def test_kept_latents_are_decoded_in_the_number_format_that_is_asked_for(done: Workbench, tmp_path: Path) -> None:
    """And in no other: what is not asked for is as the latents say, whatever the project's settings are."""
    done.set(sample={"vae_sample_size": 128})
    words = ("sample", "--latents", LATENTS.path(done.paths, "one"), "--output-type", "images", "-o", tmp_path)
    (plain,) = made(done.hv15(*words))
    before = read_sample(plain)
    (chosen,) = made(done.hv15(*words, "--set", "sample.vae_dtype=bfloat16"))
    assert (spec_of(chosen).vae_dtype, spec_of(chosen).vae_sample_size) == ("bfloat16", 256)
    found = read_sample(chosen)
    assert not np.array_equal(found, before)
    assert abs(found.astype(int) - before.astype(int)).mean() < 2


def test_images_and_their_latents(done: Workbench, tmp_path: Path) -> None:
    words = ("sample", "a red circle", *SMALL, "--output-type", "latent_images", "-o", tmp_path / "out")
    frames, latents = made(done.hv15(*words))
    assert (frames.suffix, latents.name) == (".frames", f"{frames.stem}.latents.safetensors")
    assert len(list(frames.iterdir())) == 5
    (again,) = made(done.hv15("sample", "--latents", latents, "-o", tmp_path / "again"))  # images, as it was asked for
    pictures = [sorted(folder.iterdir()) for folder in (frames, again)]
    assert [file.read_bytes() for file in pictures[0]] == [file.read_bytes() for file in pictures[1]]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("a red circle", "--latents", "KEPT"), "prompts cannot be given"),
        (("--latents", "KEPT", "--seed", "3"), "--seed cannot be given"),
        (("--latents", "KEPT", "--output-type", "latent"), "the latents are there already"),
        (("--latents", "KEPT", "--fps", "0"), "--fps 0: expected 0.01 to 1000"),
        (("--latents", "none.safetensors"), "none.safetensors: not readable"),
        (("--latents", "LORA"), "expected latents (4 axes)"),
        (("--latents", "KEPT", "COPY"), "would both become"),
        ((), "no prompt is given"),
        (("--lora", "LORA", "a red circle"), "write prompts right behind `hv15 sample`"),
    ],
)
def test_other_latents_and_options_are_refused(
    done: Workbench, tmp_path: Path, words: tuple[str, ...], named: str
) -> None:
    kept = LATENTS.path(done.paths, "one")
    copy = tmp_path / "copy" / kept.name
    copy.parent.mkdir()
    copy.write_bytes(kept.read_bytes())
    places = {"KEPT": kept, "COPY": copy, "LORA": done.root / LORA}
    is_a_refusal(done.hv15("sample", *(places.get(word, word) for word in words), "-o", tmp_path / "out"), (named,))
    assert not (tmp_path / "out").exists()
