"""musubi dataset files, as users have them."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hv15.config.datasets import DatasetSettings
from hv15.data.musubi import read_musubi
from hv15.data.scan import survey
from hv15.errors import UserError
from tests.data.scanned import scan
from tests.data.test_scan import put

CASES = Path(__file__).parent / "cases"

EXAMPLE = """
[general]
resolution = [640, 352]
caption_extension = ".txt"
batch_size = 2
enable_bucket = true

[[datasets]]
video_directory = "clips"
cache_directory = "clips/cache"
target_frames = [1, 25, 45]
frame_extraction = "uniform"

[[datasets]]
image_directory = "beside"
resolution = 512
fp_1f_clean_indices = [0]
"""


def test_general_fills_in_and_what_means_nothing_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project" / "clips").mkdir(parents=True)
    (tmp_path / "toml" / "beside").mkdir(parents=True)
    file = tmp_path / "toml" / "data.toml"
    file.write_text(EXAMPLE)
    found = read_musubi(file, tmp_path / "project")
    first, second = found.datasets
    assert first == {
        "resolution": [640, 352],
        "caption_extension": ".txt",
        "batch_size": 2,
        "enable_bucket": True,
        "video_directory": "clips",
        "target_frames": [1, 25, 45],
        "frame_extraction": "uniform",
    }
    assert second["resolution"] == 512
    assert second["image_directory"] == str(tmp_path / "toml" / "beside")
    assert found.notes == [
        f"{file} datasets[0]: cache_directory is not used: all datasets are cached in cache.directory",
        f"{file} datasets[1]: fp_1f_clean_indices is not used: it is for FramePack",
    ]
    monkeypatch.chdir(tmp_path / "project")
    assert read_musubi(file) == found


SCHEMA = {  # musubi-tuner 0.3.4, for images and videos
    **{"caption_extension": ".txt", "batch_size": 1, "num_repeats": 1, "resolution": [64, 64], "enable_bucket": True},
    **{"bucket_no_upscale": False, "skip_corrupted_cache": True, "cache_directory": "c", "control_directory": "d"},
    **{"multiple_target": False, "fp_latent_window_size": 9, "fp_1f_clean_indices": [0], "fp_1f_target_index": 1},
    **{"fp_1f_no_post": False, "no_resize_control": False, "control_resolution": [64, 64], "debug_dataset": False},
    **{"flux_kontext_no_resize_control": True, "qwen_image_edit_no_resize_control": True},
    "qwen_image_edit_control_resolution": [64, 64],
}
VIDEO = {"target_frames": [9], "frame_extraction": "head", "frame_stride": 1, "frame_sample": 1, "max_frames": 129}


def test_every_key_of_the_schema_is_taken_or_noted(tmp_path: Path) -> None:
    file = tmp_path / "d.json"
    for source, more in (("image_directory", {}), ("video_directory", {**VIDEO, "source_fps": 30.0})):
        file.write_text(json.dumps({"general": {}, "datasets": [{source: "data", **SCHEMA, **more}]}))
        found = read_musubi(file, tmp_path)
        settings = DatasetSettings.model_validate(found.datasets[0])
        assert settings.source == "data"
        noted = {note.split(": ")[1].split(" ")[0] for note in found.notes}
        assert noted | found.datasets[0].keys() == {source, *SCHEMA, *more}
        assert all(" is not used: " in note for note in found.notes)


def test_the_cases(tmp_path: Path) -> None:
    found = read_musubi(CASES / "musubi_legal_keys.toml", tmp_path)
    assert found.datasets == [
        {"resolution": [64, 64], "caption_extension": ".txt", "video_directory": "data", "target_frames": [9]}
    ]
    assert [note.partition(".toml ")[2] for note in found.notes] == [
        "general: skip_corrupted_cache is not used: damaged items of the cache are always found, and encoded again",
        "datasets[0]: fp_latent_window_size is not used: it is for FramePack",
    ]
    json_form = read_musubi(CASES / "musubi_dataset.json", tmp_path)
    assert (json_form.datasets, json_form.notes) == (found.datasets, [])


def test_a_control_directory_and_a_control_path_get_the_same_word(tmp_path: Path) -> None:
    (tmp_path / "d.toml").write_text('[[datasets]]\nvideo_directory = "x"\ncontrol_directory = "y"\n')
    (note,) = read_musubi(tmp_path / "d.toml", tmp_path).notes
    (tmp_path / "a.mp4").write_bytes(b"x")
    rows = '{"video_path": "a.mp4", "caption": "x", "control_path": "a.mp4"}\n'
    rows += '{"video_path": "a.mp4", "caption": "x", "control_path_0": "a.mp4", "control_path_1": "b", "more": 1}\n'
    (tmp_path / "v.jsonl").write_text(rows)
    found = survey(DatasetSettings(video_jsonl_file="v.jsonl"), tmp_path)
    word = "is not used: clips are trained without control pictures"
    assert note == f"{tmp_path}/d.toml datasets[0]: control_directory {word}"
    assert found.notes == [
        f"{tmp_path}/v.jsonl: control_path {word} (in 1 row)",
        f"{tmp_path}/v.jsonl: control_path_0 {word} (in 1 row)",
        f"{tmp_path}/v.jsonl: control_path_1 {word} (in 1 row)",
    ]


def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    put(tmp_path / "clips", "a.mp4")
    (tmp_path / "d.toml").write_text('[[datasets]]\nvideo_directory = "~/clips"\n')
    (settings,) = read_musubi(tmp_path / "d.toml", tmp_path / "elsewhere").datasets
    assert settings["video_directory"] == f"{tmp_path}/clips"
    assert len(scan(DatasetSettings(video_directory="~/clips"), tmp_path / "elsewhere")) == 1
    (tmp_path / "v.jsonl").write_text('{"video_path": "~/clips/a.mp4", "caption": "x"}')
    assert len(scan(DatasetSettings(video_jsonl_file="~/v.jsonl"), tmp_path / "elsewhere")) == 1


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        ('[[datasets]]\nvideo_directory = "D:\\clips"\n', "not valid TOML", "write 'D:\\train' in single quotes"),
        ('[[datasets]]\nvideo_directory = "D:\\train"\n', "found 'D:\\train'", "write 'D:\\train' in single quotes"),
        ('{"general": {}, "datasets": []}', "not valid TOML", "rename it to end in .json"),
    ],
)
def test_hints_name_the_real_cure(tmp_path: Path, content: str, message: str, hint: str) -> None:
    """ "\\t" is a tab, "\\c" no escape at all."""
    (tmp_path / "d.toml").write_text(content)
    with pytest.raises(UserError) as caught:
        read_musubi(tmp_path / "d.toml", tmp_path)
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        ('[{"video_directory": "x"}]', "found a JSON array, expected an object", '"datasets": [...]'),
        ('{"datasets": [{"video_directory": "D:\\clips"}]}', "not valid JSON", "each backslash twice"),
        ('{"datasets": [{"video_directory": "\\ud800"}]}', "holds half a character", "write the character itself"),
        ('{"datasets": [], }', "d.json:1:18: not valid JSON: ", "quotes"),
        ('"x"', "found str, expected an object", "datasets"),
    ],
)
def test_json_that_is_none(tmp_path: Path, content: str, message: str, hint: str) -> None:
    (tmp_path / "d.json").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        read_musubi(tmp_path / "d.json", tmp_path)
    assert hint in caught.value.hint


words = st.text() | st.sampled_from(["general", "datasets", "video_directory", "target_frames"])
values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(words, inner),
)


@pytest.mark.slow
@given(st.text() | values.map(json.dumps))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_datasets_or_a_sentence(tmp_path: Path, content: str) -> None:
    for suffix in ("toml", "json"):
        file = tmp_path / f"d.{suffix}"
        file.write_bytes(content.encode("utf-8", "surrogatepass"))
        with contextlib.suppress(UserError):
            assert read_musubi(file, tmp_path).datasets


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[general]\nresolution = 640, 352\n[[datasets]]\n", "d.toml:2:17: not valid TOML: "),
        ("[general]\n", "no datasets"),
        ("datasets = [1]\n", "no datasets"),
        ("[datasets]\nx = 1\n", "no datasets"),
        ("[[dataset]]\nx = 1\n", "unknown dataset"),
        ("general = 1\n[[datasets]]\nx = 1\n", "general: is not a table"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "d.toml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_musubi(tmp_path / "d.toml")


def test_missing_and_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_musubi(tmp_path / "none.toml")
    (tmp_path / "d.toml").write_bytes(b"# caf\xe9")
    with pytest.raises(UserError, match="not UTF-8 at byte 5"):
        read_musubi(tmp_path / "d.toml")


def test_a_path_that_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "d.toml")
    with pytest.raises(UserError, match="not a regular file"):
        read_musubi(tmp_path / "d.toml")


def test_what_musubi_does_with_sizes_when_buckets_are_not_mentioned(tmp_path: Path) -> None:
    """musubi-tuner crops images to the resolution but puts videos into buckets all the same."""
    text = '[[datasets]]\nimage_directory = "a"\n[[datasets]]\nvideo_directory = "b"\n'
    (tmp_path / "d.toml").write_text(text)
    assert [entry.get("enable_bucket") for entry in read_musubi(tmp_path / "d.toml").datasets] == [False, None]
    (tmp_path / "d.toml").write_text("[general]\nenable_bucket = true\n" + text)
    assert [entry.get("enable_bucket") for entry in read_musubi(tmp_path / "d.toml").datasets] == [True, True]
