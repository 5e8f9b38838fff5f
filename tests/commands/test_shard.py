"""`hv15 stage shard`: what a sample's own job would make, with one load of each model for all samples."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hv15.data.captions import caption_key
from hv15.models import load_dit, load_image_encoder, load_vae
from hv15.records.outputs import LATENTS, VIDEO
from hv15.records.paths import ProjectPaths
from hv15.records.shard import parts_of
from hv15.records.spec import Spec
from hv15.workflow import make_planner
from tests.commands.conftest import copy_of
from tests.commands.workbench import LORA, Said, Workbench

PROMPTS = [{"name": "two", "prompt": "a blue square"}, {"name": "three", "prompt": "a white dot"}]
PATHS = ProjectPaths()
SHARD = PATHS.spec("sample_shard.0"), PATHS.made("sample_shard.0")


class Loads:
    """How often each model was loaded, and which transformers are in memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.counted = {"dit": 0, "vae": 0, "image_encoder": 0}
        self._transformers: list[weakref.ref[object]] = []
        self.beside_the_vae = 0
        """Transformers that were in memory when a VAE was loaded."""
        for name, load, places in (
            ("dit", load_dit, ("models.ready.load_dit",)),
            ("vae", load_vae, ("sample.decode.load_vae", "sample.condition.load_vae")),
            ("image_encoder", load_image_encoder, ("sample.condition.load_image_encoder",)),
        ):
            for place in places:
                monkeypatch.setattr(f"hv15.{place}", self._counting(name, load))

    def _counting(self, name: str, load: object) -> object:
        def loaded(*words: object, **named: object) -> object:
            self.counted[name] += 1
            if name == "vae":
                self.beside_the_vae += sum(each() is not None for each in self._transformers)
            model = load(*words, **named)  # type: ignore[operator]
            if name == "dit":
                model.__dict__["circle"] = [model]  # as of a compiled one
                self._transformers.append(weakref.ref(model))
            return model

        return loaded


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Loads:
    return Loads(monkeypatch)


@pytest.fixture(scope="module")
def planned(finished: Workbench, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """A finished project in which two more samples are due; not to be changed."""
    bench = copy_of(finished, tmp_path_factory.mktemp("planned"))
    bench.set(sample={"prompts": [*bench.config["sample"]["prompts"], *PROMPTS], "infer_steps": 2})
    bench.does("encode", "texts")
    plan(bench)
    return bench


@pytest.fixture
def project(planned: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    """Such a project of one's own; the working directory is the project, as for each job."""
    bench = copy_of(planned, tmp_path)
    monkeypatch.chdir(bench.root)
    return bench


def plan(bench: Workbench) -> None:
    """Write the specs as a workflow on one device does."""
    make_planner(bench.project, dry_run=False, devices=1).prepare()


def make(bench: Workbench) -> Said:
    return bench.hv15("stage", "shard", "--spec", SHARD[0], "--out", SHARD[1])


def made_alone(bench: Workbench, name: str) -> tuple[bytes, bytes]:
    """What the jobs of a sample make."""
    latents, video = Path("alone.latents.safetensors"), Path("alone.mp4")
    words = ("--lora", LORA, "--out", latents)
    bench.does("stage", "denoise", "--spec", PATHS.spec(f"sample_latents.{name}"), *words)
    words = ("--latents", latents, "--out", video)
    bench.does("stage", "decode", "--spec", PATHS.spec(f"sample_video.{name}"), *words)
    return latents.read_bytes(), video.read_bytes()


def untaken(name: str) -> tuple[Path, Path]:
    return PATHS.before_taken(LATENTS.path(PATHS, name)), PATHS.before_taken(VIDEO.path(PATHS, name))


def test_the_same_bytes_with_one_load_of_each_model(project: Workbench, loads: Loads) -> None:
    said = make(project)
    assert said.code == 0, said.err
    assert loads.counted == {"dit": 1, "vae": 1, "image_encoder": 0}
    assert loads.beside_the_vae == 0
    assert SHARD[1].exists()
    for name in ("one", "two", "three"):
        assert tuple(file.read_bytes() for file in untaken(name)) == made_alone(project, name)
    before = loads.counted.copy()
    assert make(project).code == 0
    assert loads.counted == before, "everything was there"


@pytest.mark.slow
def test_a_stopped_job_keeps_what_it_has_finished(
    project: Workbench, loads: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hv15.sample.sampler import Sampler

    done, latents = list[str](), Sampler.latents

    def stopped(self: Sampler, spec: object, *inputs: object, **named: object) -> torch.Tensor:
        done.append(spec.name)  # type: ignore[attr-defined]
        if len(done) == 2:
            raise KeyboardInterrupt
        return latents(self, spec, *inputs, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Sampler, "latents", stopped)
        assert make(project).code == 130
    assert [untaken(name)[0].exists() for name in done] == [True, False]
    first = untaken(done[0])[0]
    stamp = first.stat().st_mtime_ns
    plan(project)
    assert make(project).code == 0
    assert first.stat().st_mtime_ns == stamp
    assert loads.counted == {"dit": 2, "vae": 1, "image_encoder": 0}
    assert all(file.exists() for name in ("one", "two", "three") for file in untaken(name))


@pytest.mark.slow
def test_one_that_fails_stops_no_other_and_its_own_job_says_why(
    project: Workbench, loads: Loads, caplog: pytest.LogCaptureFixture
) -> None:
    item = project.project.texts.store.path(caption_key("a blue square"))
    content = item.read_bytes()
    item.write_bytes(content[:-7])
    assert make(project).code == 0
    assert "sample_latents.two failed, the others go on" in caplog.text
    assert loads.counted == {"dit": 1, "vae": 1, "image_encoder": 0}
    there = {name: [file.exists() for file in untaken(name)] for name in ("one", "two", "three")}
    assert there == {"one": [True, True], "two": [False, False], "three": [True, True]}
    item.write_bytes(content)
    latents = LATENTS.path(PATHS, "two")
    words = ("stage", "denoise", "--spec", PATHS.spec("sample_latents.two"), "--lora", LORA, "--out", latents)
    refused = project.hv15(*words)
    assert refused.code == 2
    assert item.name in refused.err
    assert loads.counted["dit"] == 1, "it needed no model to say so"
    assert project.hv15(*words).code == 0, "the next attempt is a new one"


@pytest.mark.slow
def test_a_sample_for_which_memory_was_not_enough_is_tried_again_alone(
    project: Workbench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from hv15.sample.sampler import Sampler

    latents = Sampler.latents

    def out_of_memory(self: Sampler, spec: object, *inputs: object, **named: object) -> torch.Tensor:
        if spec.name == "two":  # type: ignore[attr-defined]
            raise torch.OutOfMemoryError("CUDA out of memory")
        return latents(self, spec, *inputs, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Sampler, "latents", out_of_memory)
        said = make(project)
    assert said.code == 0
    assert "out of memory in sampling" in caplog.text
    assert not list(PATHS.untaken.rglob("*.failure.json"))
    made_alone(project, "two")


@pytest.mark.slow
def test_samples_that_are_the_same_are_denoised_once(project: Workbench, loads: Loads) -> None:
    """The published LoRA's, and those of the training's last step."""
    targets = ("checkpoint_grid", "samples")
    make_planner(project.project, targets=targets, dry_run=False, devices=1).prepare()
    said = make(project)
    assert said.code == 0, said.err
    assert loads.counted["dit"] == 1
    assert said.err.count("denoise two 100%") == 1
    steps = [part.product for part in parts_of(Spec.read(SHARD[0])) if part.stage.startswith("checkpoint_latents")]
    assert len(steps) == 3
    of_step = {PATHS.before_taken(product).read_bytes() for product in steps}
    assert of_step == {untaken(name)[0].read_bytes() for name in ("one", "two", "three")}


@pytest.fixture
def i2v(done: Workbench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workbench]:
    """Two samples that begin with images of their own."""
    models = Path(done.config["models"]["vae"]).parent
    prompts = []
    for number, name in enumerate(("one", "two", "three")):
        Image.fromarray(np.full((64, 64, 3), 80 * number, np.uint8)).save(done.root / f"{name}.png")
        prompts.append({"name": name, "prompt": "it turns", "image_path": f"{name}.png"})
    done.set(task="i2v", models={"image_encoder": str(models / "siglip.safetensors")}, sample={"prompts": prompts})
    monkeypatch.chdir(done.root)
    plan(done)
    yield done
    gc.collect()


def test_first_images_are_encoded_with_one_load(i2v: Workbench, loads: Loads, caplog: pytest.LogCaptureFixture) -> None:
    spec, out = PATHS.spec("condition_shard.0"), PATHS.made("condition_shard.0")
    (i2v.root / "two.png").write_bytes(b"no image")  # after it was planned
    said = i2v.hv15("stage", "shard", "--spec", spec, "--out", out)
    assert said.code == 0, said.err
    assert loads.counted == {"dit": 0, "vae": 1, "image_encoder": 1}
    assert "sample_condition.two failed, the others go on" in caplog.text
    for name in ("one", "three"):
        alone = Path("alone.safetensors")
        i2v.does("stage", "condition", "--spec", PATHS.spec(f"sample_condition.{name}"), "--out", alone)
        assert PATHS.before_taken(PATHS.condition(name)).read_bytes() == alone.read_bytes()
    refused = i2v.hv15(
        "stage", "condition", "--spec", PATHS.spec("sample_condition.two"), "--out", PATHS.condition("two")
    )
    assert refused.code == 2
    assert "two.png" in refused.err


def test_only_the_spec_of_a_shard_is_taken(project: Workbench) -> None:
    other = PATHS.spec("sample_latents.two")
    naming = ("sample_latents.two.json: not the spec of a shard", "results/specs")
    project.refuses("stage", "shard", "--spec", other, "--out", "out.json", naming=naming)
