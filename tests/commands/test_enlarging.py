"""`hv15 stage upsample` and shards of super resolution: what `hv15 upsample` makes, with one load of each model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.testing import assert_close

from hv15.data.images import read_image
from hv15.data.probe import probe
from hv15.project.metadata import product_metadata
from hv15.records.json_values import parse_object
from hv15.records.metadata import ENLARGED, SAMPLE
from hv15.records.outputs import LATENTS, VIDEO
from hv15.records.paths import ProjectPaths
from hv15.sample.prompts import SampleSpec
from hv15.workflow import make_planner
from tests.commands.conftest import copy_of
from tests.commands.test_shard import Loads, loads  # noqa: F401  (a fixture)
from tests.commands.test_upsample import enlarging  # noqa: F401  (a fixture)
from tests.commands.workbench import LORA, Workbench, hv15

PATHS = ProjectPaths()
TWO = {"name": "two", "prompt": "a red circle", "seed": 7}
SHARD = PATHS.spec("upsample_shard.0"), PATHS.made("upsample_shard.0")


@pytest.fixture(scope="module")
def planned(
    finished: Workbench,
    enlarging: dict[str, str],  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Workbench:
    """A project with two finished samples, whose larger versions are due; not to be changed."""
    bench = copy_of(finished, tmp_path_factory.mktemp("planned"))
    bench.set(sample={"prompts": [*bench.config["sample"]["prompts"], TWO]})
    bench.sample("two")
    bench.set(models=enlarging, sample={"sr": "auto", "sr_steps": 2})
    make_planner(bench.project, dry_run=False, devices=1).prepare()
    return bench


@pytest.fixture
def bench(planned: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    """Such a project of one's own; the working directory is the project."""
    bench = copy_of(planned, tmp_path)
    monkeypatch.chdir(bench.root)
    return bench


def latents(name: str) -> Path:
    return LATENTS.path(PATHS, name)


def untaken(name: str) -> tuple[Path, Path]:
    large = f"{name}.sr"
    return PATHS.before_taken(LATENTS.path(PATHS, large)), PATHS.before_taken(VIDEO.path(PATHS, large))


def alone(bench: Workbench, name: str) -> tuple[bytes, bytes]:
    """What the jobs of a sample make."""
    found, video = Path("alone.latents.safetensors"), Path("alone.mp4")
    words = ("--low", latents(name), "--out", found)
    bench.does("stage", "upsample", "--spec", PATHS.spec(f"upsample_latents.{name}"), *words)
    words = ("--latents", found, "--out", video)
    bench.does("stage", "decode", "--spec", PATHS.spec(f"upsample_video.{name}"), *words)
    return found.read_bytes(), video.read_bytes()


@pytest.mark.slow
def test_a_shard_loads_each_model_once(bench: Workbench, loads: Loads) -> None:  # noqa: F811
    said = bench.hv15("stage", "shard", "--spec", SHARD[0], "--out", SHARD[1])
    assert said.code == 0, said.err
    assert loads.counted == {"dit": 1, "vae": 1, "image_encoder": 0}
    for name in ("one", "two"):
        assert tuple(file.read_bytes() for file in untaken(name)) == alone(bench, name)
    before = loads.counted.copy()
    bench.does("stage", "shard", "--spec", SHARD[0], "--out", SHARD[1])
    assert loads.counted == before, "everything was there"


def test_it_is_what_the_command_makes_and_the_file_tells_it(bench: Workbench) -> None:
    """From the same latents, prompt and seed; the record holds the small sample as well."""
    alone(bench, "one")
    out = Path("by-hand.latents.safetensors")
    bench.does("upsample", latents("one"), "-o", out, "--steps", "2")
    found = Path("alone.latents.safetensors")
    assert_close(load_file(found)["latents"], load_file(out)["latents"], atol=0, rtol=0)
    info = probe(Path("alone.mp4"), "video")
    assert (info.width, info.height, len(info.timeline.times)) == (96, 96, 5)
    for file in (found, Path("alone.mp4")):
        told = product_metadata(file)
        spec, small = (SampleSpec.from_json(parse_object(told[key])) for key in (SAMPLE, ENLARGED))
        assert (spec.name, spec.steps, spec.lora_multiplier) == ("one.sr", 2, None)
        assert (small.name, small.lora_multiplier) == ("one", 1.0)
    assert "sr_dit" in hv15("show", "alone.mp4").out


def test_the_command_and_the_workflow_make_the_same_file(bench: Workbench) -> None:
    """What one has made beside the small sample is there for the other."""
    bench.does("upsample", latents("one"))
    made = VIDEO.path(PATHS, "one.sr")
    planner = make_planner(bench.project, targets=(str(made),), devices=1)
    assert planner.running == []
    bench.set(sample={"sr_steps": 1})
    assert "upsample_latents.one" in make_planner(bench.project, targets=(str(made),), devices=1).running


@pytest.mark.slow
def test_the_trained_lora_is_used_if_asked_for(bench: Workbench) -> None:
    weights = {key: torch.randn_like(value) for key, value in load_file(LORA).items()}
    from safetensors.torch import save_file

    save_file(weights, LORA, product_metadata(Path(LORA)))
    alone(bench, "one")
    without = load_file("alone.latents.safetensors")["latents"]
    bench.set(sample={"sr_with_loras": True})
    make_planner(bench.project, dry_run=False, devices=1).prepare()
    words = ("--low", latents("one"), "--lora", LORA, "--out", "with.latents.safetensors")
    bench.does("stage", "upsample", "--spec", PATHS.spec("upsample_latents.one"), *words)
    assert not torch.allclose(load_file("with.latents.safetensors")["latents"], without, atol=1e-3)


def test_one_that_fails_stops_no_other(bench: Workbench, caplog: pytest.LogCaptureFixture) -> None:
    small = latents("two")
    content = small.read_bytes()
    small.write_bytes(content[:-7])
    bench.does("stage", "shard", "--spec", SHARD[0], "--out", SHARD[1])
    assert json.loads(SHARD[1].read_text())["failed"] == ["upsample_latents.two"]
    assert [all(file.exists() for file in untaken(name)) for name in ("one", "two")] == [True, False]
    assert "upsample_latents.two failed, the others go on" in caplog.text
    words = ("stage", "upsample", "--spec", PATHS.spec("upsample_latents.two"), "--low", small, "--out")
    refused = bench.hv15(*words, LATENTS.path(PATHS, "two.sr"))
    assert (refused.code, "two.latents.safetensors" in refused.err) == (2, True)
    other = bench.hv15("stage", "upsample", "--spec", PATHS.spec("sample_latents.two"), *words[4:], "x.safetensors")
    assert "not the spec of an enlarged sample" in other.err


def test_latents_of_another_size_are_refused(bench: Workbench) -> None:
    spec = PATHS.spec("upsample_latents.one")
    content = json.loads(spec.read_text())
    content["details"]["sample"]["enlarges"]["width"] = 80
    spec.write_text(json.dumps(content))
    said = bench.hv15("stage", "upsample", "--spec", spec, "--low", latents("one"), "--out", "x.latents.safetensors")
    assert said.code == 2
    assert "5 frames of 64 x 64, but one.sr enlarges 5 frames of 64 x 80" in said.err


@pytest.mark.slow
def test_out_of_memory_names_the_stage(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("hv15.sample.sampler.Sampler.latents", full)
    words = ("--low", latents("one"), "--out", "x.latents.safetensors")
    said = bench.hv15("stage", "upsample", "--spec", PATHS.spec("upsample_latents.one"), *words)
    assert said.code == 2
    assert "out of memory in super resolution" in said.err
    assert "upsample: " in said.err, "the plan's advice"


@pytest.mark.slow
def test_the_sheet_shows_before_and_after(bench: Workbench) -> None:
    bench.does("stage", "shard", "--spec", SHARD[0], "--out", SHARD[1])
    for name in ("one", "two"):
        for made, file in zip(untaken(name), (LATENTS, VIDEO), strict=True):
            made.rename(file.path(PATHS, f"{name}.sr"))
    bench.does("stage", "sheet", "--out", "sheet.png")
    large = read_image(Path("sheet.png"))
    bench.set(sample={"sr": "off"})
    bench.does("stage", "sheet", "--out", "small.png")
    assert large.shape[0] - read_image(Path("small.png")).shape[0] == 2 * (18 + 96 + 12), "a line more in each row"


def test_an_image_is_encoded_at_the_large_size(bench: Workbench, loads: Loads) -> None:  # noqa: F811
    folder = Path(bench.config["models"]["vae"]).parent
    image = np.random.default_rng(1).integers(0, 255, (80, 80, 3), dtype=np.uint8)
    Image.fromarray(image).save("first.png")
    prompt = {**bench.config["sample"]["prompts"][0], "image_path": "first.png"}
    bench.set(task="i2v", models={"image_encoder": str(folder / "siglip.safetensors")}, sample={"prompts": [prompt]})
    make_planner(bench.project, dry_run=False, devices=1).prepare()
    shard = PATHS.spec("condition_shard.0")
    bench.does("stage", "shard", "--spec", shard, "--out", "made.json")
    assert loads.counted == {"dit": 0, "vae": 1, "image_encoder": 1}
    sizes = {
        name: load_file(PATHS.before_taken(PATHS.condition(name)))["latents"].shape[1:] for name in ("one", "one.sr")
    }
    assert sizes == {"one": (1, 4, 4), "one.sr": (1, 6, 6)}
    bench.does("encode", "texts")
    words = ("--low", latents("one"), "--condition", PATHS.before_taken(PATHS.condition("one.sr")))
    out = Path("large.latents.safetensors")
    bench.does("stage", "upsample", "--spec", PATHS.spec("upsample_latents.one"), *words, "--out", out)
    by_hand = Path("by-hand.latents.safetensors")
    bench.does("upsample", latents("one"), "--image", "first.png", "--steps", "2", "-o", by_hand)
    assert_close(load_file(out)["latents"], load_file(by_hand)["latents"], atol=1e-6, rtol=0)
