"""What stops nobody: `hv15 check` before the encoding and `hv15 report` after it say the same, in few lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hv15.commands.dataset_notes import MOST_NAMED, media_notes
from tests.commands.workbench import Workbench
from tests.data.videos import copy_packets, make_video


def add_curious_files(folder: Path) -> None:
    """Files that can be used, or are left aside, and deserve a word."""
    for number in range(MOST_NAMED + 2):
        options = {"g": "12", "bf": "0", "sc_threshold": "0"}
        whole = make_video(folder.parent / "whole.mp4", 24 + number, options=options)
        copy_packets(whole, folder / f"cut{number}.mp4", skip=5)
        (folder / f"cut{number}.txt").write_text("a red circle")
    (folder / "cut0.txt").write_text("")
    (folder / "cut1.txt").write_text(" \n")
    (folder / "cut2.txt").write_text("word " * 3000)
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(folder / "still.png")
    (folder / "still.txt").write_text("a picture in a folder of videos")
    (folder / "@eaDir").mkdir()


NOTES = (
    "7 files: begins between key frames: its first 7 frames (0.3 s) cannot be decoded and are left out: "
    "clips/cut0.mp4, clips/cut1.mp4, clips/cut2.mp4, clips/cut3.mp4, clips/cut4.mp4 and 2 more",
    "clips: not used: 1 image: use image_directory for them",
    "clips: ignored: @eaDir (folders of the system or of another program)",
    "2 files have an empty caption: clips/cut0.mp4, clips/cut1.mp4",
    "1 caption is too long for an encoder, the end is cut off: clips/cut2.txt (",
    "1 prompt is too long for an encoder, the end is cut off: one (",
)


def test_check_and_report_say_what_a_person_should_know(project: Workbench) -> None:
    add_curious_files(project.clips)
    project.set(sample={"prompts": [{"name": "one", "prompt": "word " * 3000}]})
    said = project.does("check").out
    for note in NOTES:
        found = [line for line in said.splitlines() if note in line]
        assert len(found) == 1, said
        [line] = found
        assert line.startswith("  dataset        note: ")
    project.encode()
    said = project.does("report").out
    for note in NOTES:
        found = [line for line in said.splitlines() if note in line]
        assert len(found) == 1, said
        [line] = found
        assert line.startswith("note: ")
    assert "note: 7 files: begins between" in project.does("report").out, "the manifest keeps it"


@pytest.mark.slow
def test_nothing_is_said_of_a_sound_dataset(project: Workbench) -> None:
    assert "dataset        note" not in project.does("check").out
    project.encode()
    assert "note" not in project.does("report").out


def test_the_most_frequent_note_comes_first() -> None:
    notes = {"b": ["/p/1.mp4"], "c": ["/p/2.mp4", "/elsewhere/3.mp4"], "a": ["/p/4.mp4"]}
    assert list(media_notes(notes, Path("/p"))) == [
        "2 files: c: 2.mp4, /elsewhere/3.mp4",
        "1 file: a: 4.mp4",
        "1 file: b: 1.mp4",
    ]


def test_thousands_of_buckets_are_a_few_lines(project: Workbench) -> None:
    """A folder of pictures of any shape, each kept as it is."""
    for number in range(30):
        picture = np.zeros((64, 64 + 16 * number, 3), np.uint8)
        Image.fromarray(picture).save(project.clips / f"{number}.png")
        (project.clips / f"{number}.txt").write_text("a picture")
    pictures = {"image_directory": "clips", "resolution": [64, 544], "bucket_no_upscale": True}
    project.set(datasets=[{"video_directory": "clips", "resolution": [64, 64], "target_frames": [9]}, pictures])
    said = [line for line in project.does("check").out.splitlines() if line.startswith("  bucket ")]
    assert len(said) == 13
    assert sum(int(line.split(": ")[1].split()[0]) for line in said) == 33
    assert said[-1].split(maxsplit=1)[1].endswith("smaller ones: 19 clips")
