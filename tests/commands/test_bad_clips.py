"""Files of a dataset that cannot be used: named in one list, all others encoded and kept, nothing done twice."""

from __future__ import annotations

import json
import os
from pathlib import Path

import av
import numpy as np
import pytest

from tests.commands.conftest import CLIPS
from tests.commands.workbench import LORA, Workbench
from tests.data.videos import make_video

BAD = {
    "corrupt": "cannot be read as a video",
    "truncated": "cut short",
    "empty": "empty file (0 bytes)",
    "sound": "expected a video, found audio",
    "short": "5 frames at 24 fps, but target_frames asks for 9",
}


def add_bad_clips(folder: Path) -> None:
    """One file of each kind of BAD, with captions, beside the good ones."""
    whole = next(iter(sorted(folder.glob("*.mp4")))).read_bytes()
    (folder / "corrupt.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "truncated.mp4").write_bytes(whole[:-100])
    (folder / "empty.mp4").touch()
    write_sound(folder / "sound.mp4")
    make_video(folder / "short.mp4", 5)
    for name in BAD:
        (folder / f"{name}.txt").write_text("a caption")


def write_sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.rate = 8000
        container.mux([*stream.encode(frame), *stream.encode()])


def test_stop_encodes_all_others_and_lists_the_bad_ones_once(project: Workbench) -> None:
    add_bad_clips(project.clips)
    project.set(cache={"shards": 3})
    naming = tuple(f"{name}.mp4: {reason}" for name, reason in BAD.items())
    said = project.refuses("encode", "latents", naming=(*naming, "5 files cannot be used", "cache.bad_clips"))
    assert all(said.err.count(f"{name}.mp4") == 1 for name in BAD)
    kept = project.items("latents")
    assert len(kept) == CLIPS

    for name in BAD:
        (project.clips / f"{name}.mp4").unlink()
    make_video(project.clips / "short.mp4", 9)  # one is mended, the others are given up
    assert "clips: 1 encoded, 3 already there" in project.does("encode", "latents").err
    assert {path: time for path, time in project.items("latents").items() if path in kept} == kept


@pytest.mark.slow
def test_skip_lists_them_in_the_report_and_training_goes_on(project: Workbench) -> None:
    add_bad_clips(project.clips)
    project.set(cache={"bad_clips": "skip"})
    assert "left out 5 files" in project.does("encode", "latents").err
    project.does("encode", "texts")
    said = project.does("report")
    assert f"{CLIPS} clips of {CLIPS + len(BAD)} files" in said.out
    assert f"left out {len(BAD)} files" in said.out
    for name, reason in BAD.items():
        assert f"{name}.mp4: {reason}" in said.out
    project.plan()
    said = project.does("train", "--spec", project.spec("train"), "--out", project.root / LORA)
    assert f"{len(BAD)} files were left out: `hv15 report` says why" in said.err


@pytest.mark.slow
def test_the_report_names_clips_that_are_too_short_for_a_length(project: Workbench) -> None:
    project.set(datasets=[{"video_directory": "clips", "resolution": [64, 64], "target_frames": [9, 401]}])
    project.encode()
    said = project.does("report")
    assert f"{CLIPS} clips of {CLIPS} files, 5 texts" in said.out
    assert said.out.count("too short for 401 frames") == CLIPS


def test_the_report_before_the_encoding(project: Workbench) -> None:
    project.refuses("report", naming=("are not encoded yet", "hv15 run"))


def test_what_was_left_out_is_no_lost_item(project: Workbench) -> None:
    add_bad_clips(project.clips)
    project.set(cache={"bad_clips": "skip"})
    project.does("encode", "latents")
    latents = project.project.latents
    assert all(latents.is_complete(shard) for shard in range(latents.shards))
    assert project.does("repair").out == f"{CLIPS} sound\n"


def test_a_dataset_of_which_nothing_is_left_is_an_error(project: Workbench) -> None:
    for path in project.clips.glob("*.mp4"):
        path.write_bytes(b"")
    project.set(cache={"bad_clips": "skip"})
    project.does("encode", "latents")
    project.does("encode", "texts")
    assert "left out 1 file" in project.does("report").out, "all three have the same content"
    project.refuses("train", "--out", project.root / "results/x.safetensors", naming=("no clip is left",))


def test_bad_images_and_folders_of_images(project: Workbench) -> None:
    (project.clips / "frames").mkdir()
    (project.clips / "frames.txt").write_text("a folder of images")
    for number in range(9):
        (project.clips / "frames" / f"{number}.png").write_bytes(b"not an image")
    project.refuses("encode", "latents", naming=("frames/0.png", "not an image"))
    assert len(project.items("latents")) == CLIPS


@pytest.mark.slow
def test_a_name_that_is_not_utf8_does_no_harm(project: Workbench) -> None:
    name = os.fsdecode(b"caf\xe9")
    for path in sorted(project.clips.glob("*"))[:2]:
        path.rename(path.with_stem(name))
    (project.clips / f"{name}2.mp4").touch()
    (project.clips / f"{name}2.txt").write_text("a caption")
    project.refuses("encode", "latents", naming=("2.mp4: empty file",))
    project.set(cache={"bad_clips": "skip"})
    project.does("encode", "latents")
    project.does("encode", "texts")
    assert f"{name}2.mp4: empty file" in project.does("report").out


def test_a_pipe_is_no_clip(project: Workbench) -> None:
    os.mkfifo(project.clips / "pipe.mp4")
    (project.clips / "pipe.txt").write_text("it would be read for ever")
    project.refuses("encode", "latents", naming=("pipe.mp4: cannot be read: not a regular file",))


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        (None, "no caption, expected in"),
        (b"caf\xe9", "not UTF-8: byte 0xe9 at offset 3"),
        ("text".encode("utf-16"), "UTF-16"),
    ],
)
def test_captions_missing_or_not_utf8(done: Workbench, caption: bytes | None, reason: str) -> None:
    file = min(done.clips.glob("*.txt"))
    content = file.read_bytes()
    file.unlink() if caption is None else file.write_bytes(caption)
    said = done.refuses("encode", "texts", naming=(file.stem, reason))
    assert str(done.clips) in said.err
    file.write_bytes(content)
    assert "texts: 0 encoded" in done.does("encode", "texts").err


def test_all_captions_at_fault_are_listed_together(project: Workbench) -> None:
    first, second, third = sorted(project.clips.glob("*.txt"))
    first.unlink()
    second.write_bytes(b"\xff")
    third.unlink()
    project.refuses("encode", "texts", naming=(first.stem, second.name, third.stem))


@pytest.mark.parametrize(
    ("dataset", "naming"),
    [
        ({"video_directory": "clip"}, ("/clip: does not exist", "did you mean", "/clips?")),
        ({"video_directory": "config.yaml"}, ("config.yaml: expected a folder, found a file",)),
        ({"image_directory": "clips"}, ("no images in this folder", "3 videos: use video_directory for them")),
        ({"video_jsonl_file": "clips"}, ("expected a file, found a folder",)),
        ({"video_jsonl_file": "list.jsonl"}, ("list.jsonl:1", "gone.mp4 does not exist", "list.jsonl:2", "not JSON")),
    ],
)
def test_wrong_paths_of_a_dataset(done: Workbench, dataset: dict[str, str], naming: tuple[str, ...]) -> None:
    (done.root / "list.jsonl").write_text('{"video_path": "gone.mp4", "caption": "x"}\n{oops\n')
    done.set(datasets=[{"resolution": [64, 64], **dataset}])
    done.refuses("encode", "latents", naming=naming)


def test_a_caption_that_no_file_can_hold(done: Workbench) -> None:
    clip = min(done.clips.glob("*.mp4"))
    (done.root / "list.jsonl").write_text(json.dumps({"video_path": str(clip), "caption": "half a \ud83d"}) + "\n")
    done.set(datasets=[{"resolution": [64, 64], "video_jsonl_file": "list.jsonl"}])
    done.refuses("encode", "texts", naming=("list.jsonl:1: the caption holds half a character",))


def test_a_dataset_that_changes_while_the_workflow_runs(done: Workbench) -> None:
    """A job reads what was planned for it, and refuses to do anything else."""
    planned = done.project
    assert len(planned.dataset.sources) == CLIPS
    make_video(done.clips / "new.mp4", 9)
    (done.clips / "new.txt").write_text("another caption")
    naming = ("the dataset or the config changed while the workflow was running", "run the same command again")
    for kind, now in (("latents", done.project.latents), ("texts", done.project.texts)):
        before = planned.latents if kind == "latents" else planned.texts
        assert len(before.needed) == len(now.needed) - 1
        refused = [shard for shard in range(2) if before.needs_digest(shard) != now.needs_digest(shard)]
        assert len(refused) == 1
        for shard in range(2):
            rule = f"encode_{kind}.{shard}"
            words = ("encode", kind, "--shard", str(shard), "--spec", done.spec(rule), "--out", done.root / "x.json")
            if shard in refused:
                done.refuses(*words, naming=naming)
            else:
                done.does(*words)  # nothing changed for it
    words = ("train", "--spec", done.spec("train"), "--out", done.root / LORA)
    done.refuses(*words, naming=("specs/train.json", *naming))


def test_settings_that_change_while_the_workflow_runs(done: Workbench) -> None:
    done.set(cache={"vae_sample_size": 128})
    words = ("encode", "latents", "--shard", "0", "--spec", done.spec("encode_latents.0"))
    done.refuses(*words, naming=("the config changed while the workflow was running",))


def test_a_shard_that_does_not_exist(done: Workbench) -> None:
    done.refuses("encode", "latents", "--shard", "7", naming=("--shard 7", "cache.shards is 2"))
    done.refuses("encode", "latents", "--out", "x.json", naming=("--out", "--shard"))
