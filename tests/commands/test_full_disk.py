"""A disk that is full while a file is written: one error, nothing lost, and the same command continues afterwards."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hv15.errors import UserError
from hv15.records.spec import Spec
from tests.commands.workbench import LORA, Said, Workbench, full_disk, hv15, is_a_refusal

CURE = "free some disk space"


def refuses_when_full(project: Workbench, limit: int, *words: str | Path, naming: str) -> Said:
    before = project.files()
    with full_disk(limit):
        said = project.hv15(*words)
    is_a_refusal(said, (naming, "cannot be written", CURE))
    project.still_has(before)
    return said


@pytest.mark.slow
def test_store_items(project: Workbench) -> None:
    project.does("encode", "texts")
    texts = project.items("text")
    refuses_when_full(project, 4000, "encode", "latents", naming="cache/store/latents")
    assert project.items("latents") == {}
    assert "clips: 3 encoded" in project.does("encode", "latents").err
    assert project.items("text") == texts


def test_store_items_that_fit_are_kept(project: Workbench) -> None:
    """Texts differ in size: the short ones are stored before the disk is full, and not encoded again."""
    refuses_when_full(project, 4100, "encode", "texts", naming="cache/store/text")
    kept = project.items("text")
    assert 0 < len(kept) < 5
    said = project.does("encode", "texts")
    assert f"texts: {5 - len(kept)} encoded, {len(kept)} already there" in said.err
    assert {path: time for path, time in project.items("text").items() if path in kept} == kept


@pytest.mark.parametrize("kind", ["latents", "texts"])
def test_manifests(done: Workbench, kind: str) -> None:
    refuses_when_full(done, 100, "encode", kind, naming="-of-2.json")
    assert "0 encoded" in done.does("encode", kind).err


def test_what_is_known_of_files_is_done_without(project: Workbench, caplog: pytest.LogCaptureFixture) -> None:
    """The command continues up to the first file that it cannot do without."""
    refuses_when_full(project, 100, "encode", "texts", naming="cache/store/text")
    assert f"{project.root / 'cache/index.json'}: cannot be written" in caplog.text
    project.does("encode", "texts")


@pytest.mark.parametrize("change", ["train", "sample"])
def test_specs(done: Workbench, change: str) -> None:
    """The planner writes one again for each stage that has to run."""
    done.set(**{change: {"seed": 7}})
    before = done.files()
    with full_disk(10), pytest.raises(UserError, match="cannot be written") as caught:
        done.plan()
    assert "results/specs" in str(caught.value)
    assert CURE in caught.value.hint
    done.still_has(before)
    done.plan()
    assert Spec.load(done.spec(f"{'sample_latents.one' if change == 'sample' else change}")).runs


def test_what_a_plan_only_remembers_is_done_without(done: Workbench) -> None:
    """What the products told when they were last read, and who uses the store."""
    done.paths.recorded_products.unlink()
    shutil.rmtree(done.root / "cache/projects")
    with full_disk(10):
        assert done.hv15("why").code == 0
        assert done.hv15("encode", "texts", "--shard", "7").code == 2
    assert not done.paths.recorded_products.exists()


def test_the_lora(done: Workbench) -> None:
    """Training is over and its state saved; only the file is missing."""
    target, whole = done.root / LORA, (done.root / LORA).read_bytes()
    words = ("train", "--spec", done.spec("train"), "--out", target)
    refuses_when_full(done, 100_000, *words, naming=LORA)
    done.does(*words)
    assert target.read_bytes() == whole


def test_the_training_state(done: Workbench) -> None:
    """No state fits: the training stops at the first, and starts again when there is room."""
    whole = (done.root / LORA).read_bytes()
    shutil.rmtree(done.root / "results/train")
    (done.root / LORA).unlink()
    words = ("train", "--spec", done.spec("train"), "--out", done.root / LORA)
    said = refuses_when_full(done, 300_000, *words, naming="train/state/step-000001")
    assert "File too large" in said.err  # as the system says it, not where torch stood in its file
    assert list((done.root / "results/train/state").iterdir()) == []
    done.does(*words)
    assert (done.root / LORA).read_bytes() == whole


@pytest.mark.slow
def test_a_later_state_leaves_the_earlier_one(done: Workbench) -> None:
    """The disk fills up after a state was saved: the next call resumes from it and gives the same file."""
    whole, state = (done.root / LORA).read_bytes(), done.root / "results/train/state"
    shutil.rmtree(state / "step-000002")
    (done.root / LORA).unlink()
    words = ("train", "--spec", done.spec("train"), "--out", done.root / LORA)
    refuses_when_full(done, 300_000, *words, naming="train/state/step-000002")
    assert [path.name for path in state.iterdir()] == ["step-000001"]
    done.does(*words)
    assert (done.root / LORA).read_bytes() == whole


def test_metrics(done: Workbench) -> None:
    shutil.rmtree(done.root / "results/train/state")
    words = ("train", "--spec", done.spec("train"), "--out", done.root / LORA)
    refuses_when_full(done, 200, *words, naming="metrics.jsonl")


def test_samples(done: Workbench) -> None:
    spec, latents = done.spec("sample_latents.one"), done.samples / "one.latents.safetensors"
    words = ("stage", "denoise", "--spec", spec, "--lora", done.root / LORA, "--out", latents)
    refuses_when_full(done, 1000, *words, naming=latents.name)
    words = ("stage", "decode", "--spec", done.spec("sample_video.one"), "--latents", latents, "--out")
    refuses_when_full(done, 1000, *words, done.samples / "one.mp4", naming="one.mp4")
    (done.samples / "one.frames").mkdir()
    (done.samples / "one.frames" / "0000.png").write_bytes(b"the picture that was there before")
    refuses_when_full(done, 1000, *words, done.samples / "one.frames", naming="one.frames")


def test_conversion_and_merging(done: Workbench) -> None:
    target = done.root / "results/lora.comfyui.safetensors"
    target.write_text("what was there before")
    with full_disk(10_000):
        said = hv15("convert", done.root / LORA, target)
    is_a_refusal(said, (target.name, "cannot be written", CURE))
    assert target.read_text() == "what was there before"
    refuses_when_full(done, 10_000, "merge", "--out", target, "--lora", done.root / LORA, naming=target.name)


def test_a_folder_that_is_a_file(done: Workbench) -> None:
    """Not full, but just as impossible."""
    (done.root / "taken").write_text("a file")
    words = ("train", "--spec", done.spec("train"), "--out", done.root / "taken" / "lora.safetensors")
    done.refuses(*words, naming=("taken", "cannot be written"))
    done.set(cache={"directory": "taken"})
    done.refuses("encode", "latents", naming=("taken", "cannot be written"))
