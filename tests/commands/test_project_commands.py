"""`hv15 new`, `check`, `show`, `gc`, `repair`, and what the command line itself refuses."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from hv15 import __version__
from hv15.config import load_config
from hv15.runs import lock
from hv15.train.told_config import told_config
from tests.commands.workbench import LORA, Workbench, hv15, is_a_refusal


def test_new_makes_a_config_and_never_replaces_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = hv15("new", tmp_path / "mine", "--preset", "i2v-16gb")
    assert said.code == 0
    assert f"hv15 run {tmp_path / 'mine'}" in said.out
    config = tmp_path / "mine" / "config.yaml"
    assert "task: i2v" in config.read_text()
    config.write_text("edited by hand")
    is_a_refusal(hv15("new", tmp_path / "mine"), (str(config), "already exists"))
    assert config.read_text() == "edited by hand"
    is_a_refusal(hv15("new", tmp_path / "other", "--preset", "t2v-24g"), ("did you mean 't2v-24gb'?",))
    for said in (hv15("new", config / "below"), hv15("new", config)):
        is_a_refusal(said, ("cannot be written", "choose another name"))


def test_the_command_line_refuses_in_its_own_way(project: Workbench) -> None:
    assert hv15("--version").out == f"hv15 {__version__}\n"
    for words in ([], ["tain"], ["encode"], ["train"], ["check", "--overrides", "not json"]):
        said = hv15(*words, *(["--shard", "x"] if words == ["train"] else []))
        assert said.code == 2, words
        assert "Traceback" not in said.err


def test_settings_are_judged_all_at_once_and_in_place(done: Workbench) -> None:
    text = (done.root / "config.yaml").read_text()
    (done.root / "config.yaml").write_text(
        text.replace("max_train_steps", "max_train_step")
        .replace("video_length: 5", "video_length: 6")
        .replace("video_size:\n  - 64\n  - 64", "video_size:\n  - 64\n  - 70")
        .replace("- 9\n", "- 10\n")
        .replace("shards: 2", "shards: 2\n  vae_sample_size: 128\n  vae_tile_overlap: 0.3")
    )
    before = done.files()
    said = done.hv15("encode", "latents")
    assert said.code == 2
    assert "Traceback" not in said.err
    for words in (
        "train.max_train_step: unknown key; did you mean 'max_train_steps'?",
        "sample.video_length: 6 frames: the VAE needs 4k+1 frames; the nearest are 5 and 9",
        "target_frames[0]: 10 frames",
        "cache.vae_tile_overlap: found 0.3: tiles of 128 pixels would start every 89 pixels",
        "sample.video_size[1]: 70 pixels: must be a multiple of 16; nearest: 64 and 80",
    ):
        assert words in said.err, said.err
    assert len(re.findall(r"config\.yaml:\d+:\d+ ", said.err)) == 5
    done.still_has(before)
    (done.root / "config.yaml").write_text(text)
    assert "0 encoded" in done.does("encode", "latents").err


@pytest.mark.parametrize(
    ("content", "naming"),
    [
        (None, "config.yaml: no such file"),
        (b"", "is empty"),
        (b"task: [", "config.yaml:1:"),
        (b"- task", "found a list"),
        (b"task: \xff", "not UTF-8"),
    ],
)
def test_a_config_that_is_none(done: Workbench, content: bytes | None, naming: str) -> None:
    path = done.root / "config.yaml"
    path.unlink() if content is None else path.write_bytes(content)
    for command in (("check",), ("encode", "latents"), ("gc", "--yes")):
        said = done.hv15(*command)
        assert said.code == 2
        assert naming in (said.out if command == ("check",) else said.err)
        assert "Traceback" not in said.err
    assert len(done.items("latents")) == 3


# -- show -----------------------------------------------------------------------------------------------------------


def test_show_tells_what_a_file_was_made_from(done: Workbench) -> None:
    lora = hv15("show", done.root / LORA).out
    for words in ("ss_network_dim: 2", "hv15.task: t2v", "max_train_steps: 2"):
        assert words in lora
    for name in ("one.latents.safetensors", "one.mp4"):
        assert "a red circle" in hv15("show", done.samples / name).out


def test_show_also_reads_results_and_images(done: Workbench) -> None:
    latents = done.samples / "one.latents.safetensors"
    done.does("stage", "decode", "--latents", latents, "--out", done.root / "frames")
    assert "a red circle" in hv15("show", done.root / "frames" / "0000.png").out
    assert "prompt: a red circle" in hv15("show", done.spec("sample_latents.one")).out
    assert "loss_first: " in hv15("show", done.root / "results/train/summary.json").out


@pytest.mark.slow
def test_a_shown_config_loads_again_as_the_same_settings(done: Workbench) -> None:
    """Written into the project, it also gives the very same LoRA."""
    original = load_config(done.root / "config.yaml")
    said = hv15("show", "--config", done.root / LORA)
    assert said.code == 0
    (done.root / "config.yaml").write_text(said.out)
    shown = load_config(done.root / "config.yaml")
    assert told_config(shown.dump(), {}) == told_config(original.dump(), {})
    whole = (done.root / LORA).read_bytes()
    shutil.rmtree(done.root / "results")
    assert "clips: 0 encoded" in done.does("encode", "latents").err
    assert "texts: 0 encoded" in done.does("encode", "texts").err
    done.train()
    assert (done.root / LORA).read_bytes() == whole


def test_show_refuses_what_says_nothing(done: Workbench) -> None:
    model = Path(done.config["models"]["dit"])
    torn = done.root / "torn.safetensors"
    torn.write_bytes((done.root / LORA).read_bytes()[:-1])
    bad = done.root / "bad.mp4"
    bad.write_bytes(b"no video")
    (done.root / "bad.png").write_bytes(b"no image")
    (done.root / "bad.json").write_text("[]")
    for words, naming in (
        ((done.root / "gone.safetensors",), "does not exist"),
        ((done.root,), "a folder"),
        ((done.root / "config.yaml",), "is of an unknown kind"),
        ((torn,), "truncated"),
        ((bad,), "cannot be read as a video"),
        ((done.root / "bad.png",), "cannot be read as an image"),
        ((done.root / "bad.json",), "holds a list"),
        (("--config", done.samples / "one.mp4"), "holds no hv15 config"),
        (("--config", model), "holds no hv15 config"),
    ):
        is_a_refusal(hv15("show", *words), (str(words[-1]), naming))


# -- encode ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [pytest.param("latents", marks=pytest.mark.slow), "texts"])
def test_an_encoding_says_as_much_as_is_set(project: Workbench, kind: str) -> None:
    project.set(runtime={"log_level": "error"})
    project.does("encode", kind)
    assert logging.getLogger("hv15").level == logging.ERROR
    project.set(runtime={"log_level": "info"})
    project.does("encode", kind)
    assert logging.getLogger("hv15").level == logging.INFO


# -- gc and repair --------------------------------------------------------------------------------------------------


def test_gc_removes_only_what_no_manifest_names(done: Workbench) -> None:
    latents, texts = done.items("latents"), done.items("text")
    item = next(iter(latents))
    stray = item.with_stem(item.parent.name + "ab" * 31)
    shutil.copy(item, stray)
    assert "1 items" in done.does("gc").out
    assert stray.exists()
    assert "1 items" in done.does("gc", "--yes").out
    assert (done.items("latents"), done.items("text")) == (latents, texts)
    assert "0 items" in done.does("gc", "--yes").out


def test_gc_changes_nothing_while_a_run_goes_on(done: Workbench) -> None:
    """It would write manifests from what it read before the run's jobs wrote theirs."""
    held = lock.take(done.root, "a run")
    assert held is not None
    try:
        done.refuses("gc", "--unused", "--yes", naming=("a run is already in progress (a run)",))
        assert "0 items" in done.does("gc").out
    finally:
        os.close(held)


def test_gc_passes_over_what_another_gc_removes(done: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = next(iter(done.items("latents"))).with_stem("ab" * 32)
    monkeypatch.setattr("hv15.commands.store.removable", lambda *_: iter([gone]))
    assert "0 items" in done.does("gc", "--yes").out
    assert "0 items" in done.does("gc").out


def test_gc_keeps_what_a_stopped_encoding_has_finished(project: Workbench) -> None:
    (project.clips / "empty.mp4").touch()
    (project.clips / "empty.txt").write_text("a caption")
    project.refuses("encode", "latents", naming=("empty.mp4",))
    assert "has not finished encoding, so all of it is kept" in project.does("gc", "--yes").out
    (project.clips / "empty.mp4").unlink()
    assert "clips: 0 encoded, 3 already there" in project.does("encode", "latents").err


def test_gc_takes_what_the_config_no_longer_needs_only_when_asked(done: Workbench) -> None:
    everything = set(done.items("latents")) | set(done.items("text"))
    for path in list(done.clips.glob(f"{min(done.clips.glob('*.mp4')).stem}.*")):
        path.unlink()
    assert "0 items" in done.does("gc", "--yes").out, "a clip that was taken out may come back"
    assert "2 items" in done.does("gc", "--unused").out
    assert set(done.items("latents")) | set(done.items("text")) == everything, "without --yes nothing is removed"
    assert "2 items" in done.does("gc", "--unused", "--yes").out
    assert len(everything - set(done.items("latents")) - set(done.items("text"))) == 2
    assert "clips: 0 encoded, 2 already there" in done.does("encode", "latents").err
    assert "texts: 0 encoded" in done.does("encode", "texts").err


@pytest.mark.slow
def test_gc_takes_other_settings_items_only_when_asked(done: Workbench) -> None:
    done.set(cache={"vae_sample_size": 128})
    done.does("encode", "latents")
    assert "0 items" in done.does("gc", "--yes").out
    assert "3 items" in done.does("gc", "--unused", "--yes").out
    assert "clips: 0 encoded, 3 already there" in done.does("encode", "latents").err


def test_gc_keeps_what_another_project_needs(done: Workbench, tmp_path: Path) -> None:
    """Until that project is gone, and a person says that it does not come back."""
    other = Workbench(shutil.copytree(done.root, tmp_path / "other"))
    shutil.rmtree(other.root / "cache")
    other.set(cache={"directory": str(done.root / "cache")})
    assert "clips: 0 encoded, 3 already there" in other.does("encode", "latents").err
    everything = done.items("latents")
    for path in list(done.clips.glob(f"{min(done.clips.glob('*.mp4')).stem}.*")):
        path.unlink()
    assert "0 items" in done.does("gc", "--unused", "--yes").out
    assert done.items("latents") == everything

    other.root.rename(tmp_path / "elsewhere")
    before = done.files()
    said = done.does("gc", "--unused")
    assert f"{other.root}: used this store and is missing now" in said.out
    done.refuses("gc", "--unused", "--yes", naming=("nothing is removed", str(other.root), "--forget"))
    assert done.files() == before
    assert "2 items" in done.does("gc", "--unused", "--yes", "--forget").out
    assert len(done.items("latents")) == 2
    assert "is missing now" not in done.does("gc", "--yes").out, "it is forgotten"


def test_a_moved_project_is_no_stranger_in_its_own_store(done: Workbench, tmp_path: Path) -> None:
    done.does("gc")
    moved = Workbench(done.root.rename(tmp_path / "moved"))
    said = moved.does("gc", "--yes")
    assert said.out.startswith("0 items"), said.out
    shutil.copytree(moved.root, tmp_path / "copy")
    for path in list(moved.clips.glob(f"{min(moved.clips.glob('*.mp4')).stem}.*")):
        path.unlink()
    assert "2 items" in moved.does("gc", "--unused", "--yes").out, "the copy has a store of its own"


def test_repair_drops_damaged_items_and_they_are_encoded_again(done: Workbench) -> None:
    items = done.items("latents")
    torn, lost = sorted(items)[:2]
    torn.write_bytes(torn.read_bytes()[:-4])
    lost.unlink()
    assert "2 damaged or lost, 6 sound" in done.does("repair").out
    assert set(done.items("latents")) == set(items) - {torn, lost}
    assert "clips: 2 encoded, 1 already there" in done.does("encode", "latents").err
    assert "8 sound" in done.does("repair").out


def flip_a_bit(item: Path) -> None:
    """In the middle of the last tensor: the file stays whole, and its numbers are numbers."""
    data = bytearray(item.read_bytes())
    data[-64] ^= 1
    item.write_bytes(data)


def test_one_flipped_bit_is_found_by_repair_and_by_training(done: Workbench) -> None:
    flip_a_bit(min(done.items("latents")))
    flip_a_bit(min(done.items("text")))
    assert "2 damaged or lost, 6 sound" in done.does("repair").out
    done.encode()
    item = min(done.items("latents"))
    flip_a_bit(item)
    shutil.rmtree(done.root / "results/train")
    done.set(train={"max_train_steps": 3})  # a step sees one clip: all of them
    said = done.hv15("train", "--out", done.root / "results/another.safetensors")
    is_a_refusal(said, (item.name, "its content is not what was written; it is removed"))


def test_repair_says_what_it_may_not_remove(done: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store on a disk that is mounted read-only, or somebody else's."""
    for item in sorted(done.items("latents"))[:2]:
        flip_a_bit(item)

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    said = done.hv15("repair")
    assert "2 damaged or lost, 6 sound" in said.out
    is_a_refusal(said, ("it cannot be removed: Read-only file system (and 1 more)", "make its folder writable"))


@pytest.mark.slow
def test_training_names_a_damaged_item(done: Workbench) -> None:
    item = min(done.items("latents"))
    item.write_bytes(item.read_bytes()[:-4])
    shutil.rmtree(done.root / "results/train")
    done.set(train={"max_train_steps": 3})  # a step sees one clip: all of them
    words = ("train", "--out", done.root / "results/another.safetensors")
    said = done.hv15(*words)
    is_a_refusal(said, (item.name, "it is removed"))
    done.refuses(*words, naming=("1 of 3 encoded clips are missing", "hv15 repair"))
    done.does("repair")
    done.encode()
    assert "8 sound" in done.does("repair").out


@pytest.mark.slow
def test_loras_of_equal_runs_are_equal(done: Workbench) -> None:
    """The guard of the comparisons above: another seed gives another file."""
    done.set(train={"seed": 7})
    whole = load_file(done.root / LORA)
    done.train()
    assert any(not value.equal(whole[name]) for name, value in load_file(done.root / LORA).items())
