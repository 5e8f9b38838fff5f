from __future__ import annotations

import json
import os
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from hv15.data.encode import write_images, write_video
from hv15.digest import digest
from hv15.errors import UserError
from hv15.records.json_values import JsonObject
from hv15.records.paths import ProjectPaths
from hv15.records.spec import Spec
from tests.data.videos import make_video, number_of, numbered, numbers_of
from tui.data import clips
from tui.data.clips import fitted
from tui.data.sample_relatives import pair_of
from tui.data.sample_standing import SampleStanding, StandingReader
from tui.data.samples import Sample, SamplesReader, load_clip, still
from tui.widgets.sample_list import sample_title, step_words


def touch(root: Path, name: str, content: str = "x") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def sampled(root: Path, name: str, prompt: str, time: float = 1e9) -> Path:
    """A video that tells what it was made from."""
    path = root / name
    asked = {"name": "cat", "prompt": prompt, "negative_prompt": "", "seed": 7, "steps": 30}
    write_video(path, numbered(0)[None], metadata={"hv15.sample": json.dumps(asked)})
    os.utime(path, (time, time))
    return path


def test_samples_are_grouped_by_prompt_and_ordered_by_step(tmp_path: Path) -> None:
    sampled(tmp_path, "results/samples/cat.mp4", "a cat")
    touch(tmp_path, "results/samples/cat.base.mp4")
    touch(tmp_path, "results/samples/.cat.tmp.mp4")
    touch(tmp_path, "results/samples/cat.latents.safetensors")
    write_images(tmp_path / "results/samples/dog.frames", numbered(0)[None], {"hv15.sample": '{"prompt": "a dog"}'})
    for step in (1000, 200):
        sampled(tmp_path, f"results/train/previews/cat-step{step:06}.mp4", "a cat")
    touch(tmp_path, "results/rank-8/samples/cat.mp4")
    reader = SamplesReader(tmp_path / "config.yaml")
    assert reader.refresh()
    assert [(each.prompt_name, each.kind, each.step, each.experiment) for each in reader.samples] == [
        ("cat", "base", None, ""),
        ("cat", "preview", 200, ""),
        ("cat", "preview", 1000, ""),
        ("cat", "final", None, ""),
        ("cat", "final", None, "rank-8"),
        ("dog", "final", None, ""),
    ]
    assert [each.settings.prompt for each in reader.samples] == ["", "a cat", "a cat", "a cat", "", "a dog"]
    final, dog = reader.samples[3], reader.samples[5]
    assert (final.settings.seed, final.settings.flow_shift) == (7, None)
    assert dog.media == "frames"
    assert not reader.refresh()
    sampled(tmp_path, "results/samples/cat.mp4", "another cat", time=2e9)
    assert reader.refresh()
    assert reader.samples[3].settings.prompt == "another cat"


def test_what_super_resolution_makes_stands_after_its_sample(tmp_path: Path) -> None:
    """It tells of the small sample's training; one that the config does not ask for is no longer in it."""
    config = "models: {source: hub, variant: 480p_t2v}\nsample: {sr: auto, prompts: [{name: cat, prompt: a cat}, %s]}\n"
    (tmp_path / "config.yaml").write_text(config % "{name: dog, prompt: a dog, sr: off}")
    for name in ("cat", "cat.sr", "dog.sr"):
        made_from: JsonObject = {"latents": {"trained": None, "low": {"trained": "t"}}}
        asked = json.dumps({"prompt": "a cat" if "cat" in name else "a dog", "lora_multiplier": None, "width": 96})
        told = {"hv15.sample": asked, "hv15.made_from": json.dumps(made_from)}
        (tmp_path / "results/samples").mkdir(parents=True, exist_ok=True)
        write_video(tmp_path / f"results/samples/{name}.mp4", numbered(0)[None], metadata=told)
    reader = SamplesReader(tmp_path / "config.yaml")
    reader.refresh()
    found = [(each.prompt_name, each.kind, each.standing) for each in reader.samples]
    current, gone = SampleStanding.CURRENT, SampleStanding.NOT_IN_CONFIG
    assert found == [("cat", "final", current), ("cat", "enlarged", current), ("dog", "enlarged", gone)]
    assert {each.trained for each in reader.samples} == {"t"}
    assert (reader.asked, reader.enlarged) == ({"cat": False, "dog": False}, {"cat"})
    assert [step_words(each) for each in reader.samples] == ["final", "enlarged", "removed"]
    assert sample_title(reader.samples[1]) == "cat · enlarged"


def test_damaged_and_missing_files_stop_nothing(tmp_path: Path) -> None:
    reader = SamplesReader(tmp_path / "config.yaml")
    assert not reader.refresh()
    for name, text in {"a": "[" * 100_000, "b": "oops", "c": "[]"}.items():
        path = tmp_path / f"results/samples/{name}.mp4"
        write_video(path, numbered(0)[None], metadata={"hv15.sample": text})
    torn = sampled(tmp_path, "results/samples/torn.mp4", "a cat")
    torn.write_bytes(torn.read_bytes()[:-20])
    touch(tmp_path, "results/samples/empty.mp4", "")
    (tmp_path / "results/samples/d.mp4").symlink_to(tmp_path / "nowhere")
    assert reader.refresh()
    assert [sample.name for sample in reader.samples] == ["a", "b", "c", "empty", "torn"]
    assert {sample.settings.prompt for sample in reader.samples} == {""}
    assert "d.mp4: cannot be read" in reader.error


def test_a_video_keeps_all_its_frames_at_a_small_size(tmp_path: Path) -> None:
    clip = load_clip(make_video(tmp_path / "a.mp4", 24, size=(96, 128)), 40, 1000)
    assert clip.frames.shape == (24, 30, 40, 3)
    assert numbers_of(clip.frames) == list(range(24))
    assert (clip.fps, clip.source_size, clip.count) == (24.0, (128, 96), 24)
    assert number_of(np.asarray(still(tmp_path / "a.mp4", 13))) == 13
    assert number_of(np.asarray(still(tmp_path / "a.mp4", 999))) == 23
    assert still(tmp_path / "a.mp4", 0).size == (128, 96)


def test_a_long_video_is_thinned_evenly_at_the_same_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "MOST_FRAMES", 10)
    clip = load_clip(make_video(tmp_path / "a.mp4", 30, rate=Fraction(30)), 64, 48)
    assert numbers_of(clip.frames) == list(range(0, 30, 4))
    assert clip.fps == 7.5


def test_images_and_folders_of_images(tmp_path: Path) -> None:
    folder = tmp_path / "a.frames"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (64, 32), (number, 0, 0)).save(folder / f"{number}.png")
    clip = load_clip(folder, 16, 16)
    assert clip.frames.shape == (3, 8, 16, 3)
    assert clip.frames[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert still(folder, 2).getpixel((0, 0)) == (2, 0, 0)
    assert load_clip(folder / "1.png", 16, 16).frames.shape == (1, 8, 16, 3)


def test_decoding_can_be_cancelled(tmp_path: Path) -> None:
    cancel = threading.Event()
    cancel.set()
    assert load_clip(make_video(tmp_path / "a.mp4", 24), 40, 40, cancel).count == 0


@pytest.mark.parametrize("content", [b"", b"no video", None])
def test_what_shows_nothing_is_told(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.mp4"
    if content is not None:
        path.write_bytes(content)
    for look in (lambda: load_clip(path, 8, 8), lambda: still(path, 0)):
        with pytest.raises(UserError, match=r"a\.mp4"):
            look()
    (tmp_path / "empty.frames").mkdir()
    with pytest.raises(UserError, match="no images"):
        load_clip(tmp_path / "empty.frames", 8, 8)


def test_a_video_that_is_cut_short_shows_what_is_there(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "a.mkv", 48).read_bytes()
    (tmp_path / "b.mkv").write_bytes(whole[: len(whole) * 3 // 4])
    clip = load_clip(tmp_path / "b.mkv", 64, 48)
    assert 0 < clip.count < 48
    assert numbers_of(clip.frames)[:5] == [0, 1, 2, 3, 4]


def test_fitting_keeps_the_shape() -> None:
    assert fitted(832, 480, 100, 58) == (100, 58)
    assert fitted(480, 832, 100, 58) == (33, 58)
    assert fitted(10_000, 1, 100, 100) == (100, 1)


CONFIG = """\
models: {source: demo}
datasets: [{video_directory: clips, target_frames: [9]}]
sample:
  with_base: true
  prompts:
    - {name: cat, prompt: a cat}
    - {name: dog, prompt: a dog, with_base: false}
"""


def made_by(root: Path, name: str, training: JsonObject, prompt: str = "a cat") -> None:
    """A video that tells of which training it is."""
    made_from = {"latents": {"trained": digest(training)}}
    metadata = {"hv15.sample": json.dumps({"prompt": prompt}), "hv15.made_from": json.dumps(made_from)}
    path = root / f"results/samples/{name}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, numbered(0)[None], metadata=metadata)


def test_a_preview_tells_that_it_shows_the_average(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    for step, more in ((1, {}), (2, {"ema_decay": 0.99}), (3, {"ema_decay": "much"})):
        path = tmp_path / f"results/train/previews/cat.step{step:06d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        made_from = {"latents": {"trained": "a", "step": step, **more}}
        write_video(path, numbered(0)[None], metadata={"hv15.made_from": json.dumps(made_from)})
    reader = SamplesReader(tmp_path / "config.yaml")
    reader.refresh()
    assert [(sample.step, sample.ema_decay) for sample in reader.samples] == [(1, None), (2, 0.99), (3, None)]
    assert [sample_title(sample) for sample in reader.samples] == [
        "cat · step 1",
        "cat · step 2 · average",
        "cat · step 3",
    ]


def standings(reader: SamplesReader) -> dict[str, SampleStanding]:
    return {sample.name: sample.standing for sample in reader.samples}


def test_samples_of_another_training_or_prompt_are_no_final_ones(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    made_by(tmp_path, "cat", {"steps": 100})
    made_by(tmp_path, "dog", {"steps": 100}, "two dogs")
    for name in ("cat.base", "dog.base", "bird"):
        sampled(tmp_path, f"results/samples/{name}.mp4", "a cat")
    reader = SamplesReader(tmp_path / "config.yaml")
    assert reader.refresh()
    asked = {
        "bird": SampleStanding.NOT_IN_CONFIG,
        "cat": SampleStanding.CURRENT,
        "cat.base": SampleStanding.CURRENT,
        "dog": SampleStanding.EARLIER_PROMPT,
        "dog.base": SampleStanding.NOT_IN_CONFIG,
    }
    assert standings(reader) == asked

    # a training that was begun and has not published anything makes the others earlier ones
    Spec({"steps": 200}).write(ProjectPaths(tmp_path).spec("train"))
    assert reader.refresh()
    assert standings(reader) == {**asked, "cat": SampleStanding.EARLIER_TRAINING}

    # while an earlier training's LoRA is there, its samples are of it
    trained = ProjectPaths(tmp_path).trained
    save_file({"x": torch.zeros(1)}, trained, {"hv15.made_from": json.dumps({"steps": 100})})
    assert reader.refresh()
    assert standings(reader) == asked
    save_file({"x": torch.zeros(1)}, trained, {"hv15.made_from": json.dumps({"steps": 3000})})
    assert reader.refresh()
    assert standings(reader)["cat"] is SampleStanding.EARLIER_TRAINING

    (tmp_path / "config.yaml").write_text(CONFIG.replace("a dog", "two dogs"))
    assert reader.refresh()
    assert standings(reader)["dog"] is SampleStanding.EARLIER_TRAINING
    assert not reader.refresh()


def of_step(root: Path, step: int, training: JsonObject) -> None:
    """A sample of a kept LoRA, and that LoRA."""
    folder = ProjectPaths(root).checkpoint(step)
    made_by(root, "cat", training)
    folder.mkdir(parents=True)
    (root / "results/samples/cat.mp4").rename(folder / "cat.mp4")
    save_file({"x": torch.zeros(1)}, folder / "lora.safetensors", {"hv15.made_from": json.dumps(training)})


def test_samples_of_checkpoints_stand_by_their_step(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    of_step(tmp_path, 200, {"step": 200})
    of_step(tmp_path, 90, {"step": 90})
    made_by(tmp_path, "cat", {"steps": 300})
    trained = ProjectPaths(tmp_path).trained
    save_file({"x": torch.zeros(1)}, trained, {"hv15.made_from": json.dumps({"steps": 300})})
    reader = SamplesReader(tmp_path / "config.yaml")
    assert reader.refresh()
    found = [(each.kind, each.step, each.standing) for each in reader.samples]
    current = SampleStanding.CURRENT
    assert found == [("checkpoint", 90, current), ("checkpoint", 200, current), ("final", None, current)]
    assert sample_title(reader.samples[0]) == "cat · step 90 · checkpoint"

    # of the published step, the final samples are those that its LoRA has made
    (tmp_path / "config.yaml").write_text(f"{CONFIG}train: {{publish_step: 90}}\n")
    assert reader.refresh()
    assert [each.standing for each in reader.samples] == [current, current, SampleStanding.EARLIER_TRAINING]


def test_the_prompts_are_those_of_the_config_that_was_opened(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "other.yaml").write_text(CONFIG.replace("a cat", "two cats"))
    sampled(tmp_path, "results/samples/cat.mp4", "two cats")
    for name, standing in (("config.yaml", SampleStanding.EARLIER_PROMPT), ("other.yaml", SampleStanding.CURRENT)):
        reader = SamplesReader(tmp_path / name)
        assert reader.refresh()
        assert standings(reader) == {"cat": standing}


def test_a_config_that_cannot_be_read_marks_nothing(tmp_path: Path) -> None:
    sampled(tmp_path, "results/samples/cat.mp4", "a cat")
    (tmp_path / "config.yaml").write_text("oops: [")
    reader = SamplesReader(tmp_path / "config.yaml")
    assert reader.refresh()
    assert standings(reader) == {"cat": SampleStanding.CURRENT}


@pytest.mark.parametrize(
    ("standing", "word", "title"),
    [
        (SampleStanding.CURRENT, "final", "cat · final"),
        (SampleStanding.EARLIER_TRAINING, "earlier", "cat · of an earlier training"),
        (SampleStanding.EARLIER_PROMPT, "edited", "cat · of an earlier prompt"),
        (SampleStanding.NOT_IN_CONFIG, "removed", "cat · no longer in the config"),
    ],
)
def test_only_what_the_project_asks_for_is_called_final(standing: SampleStanding, word: str, title: str) -> None:
    sample = Sample("cat", "cat", None, "final", "", Path("cat.mp4"), "video", 1, 0.0, standing=standing)
    assert (step_words(sample), sample_title(sample)) == (word, title)


@pytest.mark.parametrize(
    ("with_base", "standing"), [(True, SampleStanding.CURRENT), (False, SampleStanding.NOT_IN_CONFIG)]
)
def test_the_contact_sheet_belongs_to_samples_that_are_compared(
    tmp_path: Path, with_base: bool, standing: SampleStanding
) -> None:
    prompts = [{"name": "cat", "prompt": "a cat"}]
    config = {"models": {"source": "demo"}, "datasets": [{"video_directory": "clips"}]}
    (tmp_path / "config.yaml").write_text(
        json.dumps({**config, "sample": {"with_base": with_base, "prompts": prompts}})
    )
    reader = StandingReader(tmp_path / "config.yaml")
    reader.refresh()
    assert reader.of("", "contact_sheet", "", None) is standing


def test_prompts_of_a_file_beside_the_config(tmp_path: Path) -> None:
    config = touch(
        tmp_path, "config.yaml", "models: {source: demo}\nsample: {seeds: [1, 2], prompts_file: more.yaml}\n"
    )
    touch(tmp_path, "more.yaml", "- {name: cat, prompt: a cat}\n")
    reader = StandingReader(config)
    assert reader.refresh()
    assert reader.asked == {"cat.seed1": "a cat", "cat.seed2": "a cat"}
    assert not reader.refresh()
    touch(tmp_path, "more.yaml", "- {name: dog, prompt: a dog, seed: 5}\n")
    assert reader.refresh()
    assert reader.asked == {"dog": "a dog"}
    assert reader.of("", "cat.seed1", "a cat", None) is SampleStanding.NOT_IN_CONFIG
    touch(tmp_path, "more.yaml", "- [")
    assert reader.refresh()
    touch(tmp_path, "more.yaml", "- {name: pig, prompt: a pig, seed: 5}\n")
    assert reader.refresh()
    assert reader.asked == {"pig": "a pig"}


def test_before_and_after_super_resolution_are_of_the_same_strength(tmp_path: Path) -> None:
    for name in ("cat.x0.5", "cat.x1", "cat.x1.base", "dog"):
        touch(tmp_path, f"results/samples/{name}.mp4")
    for name in ("cat.x0.5", "cat.x1"):
        touch(tmp_path, f"results/samples/{name}.sr.mp4")
    reader = SamplesReader(tmp_path / "config.yaml")
    reader.refresh()
    named = {each.name: each for each in reader.samples}
    for name in ("cat.x1", "cat.x1.sr"):
        assert pair_of(reader.samples, named[name]) == (named["cat.x1"], named["cat.x1.sr"])
    assert pair_of(reader.samples, named["dog"]) is None
    assert pair_of(reader.samples, named["cat.x1.base"]) == (named["cat.x0.5"], named["cat.x0.5.sr"]), "the first"
