"""musubi dataset files, as users have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hv15.data.musubi import read_musubi_toml
from hv15.errors import UserError

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


def test_general_fills_in_and_unknown_keys_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project" / "clips").mkdir(parents=True)
    (tmp_path / "toml" / "beside").mkdir(parents=True)
    file = tmp_path / "toml" / "data.toml"
    file.write_text(EXAMPLE)
    first, second = read_musubi_toml(file, tmp_path / "project")
    assert first == {
        "resolution": [640, 352],
        "caption_extension": ".txt",
        "batch_size": 2,
        "enable_bucket": True,
        "video_directory": "clips",
        "cache_directory": "clips/cache",
        "target_frames": [1, 25, 45],
        "frame_extraction": "uniform",
    }
    assert second["resolution"] == 512
    assert second["fp_1f_clean_indices"] == [0]
    assert second["image_directory"] == str(tmp_path / "toml" / "beside")
    monkeypatch.chdir(tmp_path / "project")
    assert read_musubi_toml(file) == [first, second]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[general]\nresolution = 640, 352\n[[datasets]]\n", "not valid TOML: .*line 2, column 17"),
        ("[general]\n", "no datasets"),
        ("[datasets]\nx = 1\n", "no datasets"),
        ("[[dataset]]\nx = 1\n", "unknown dataset"),
        ("general = 1\n[[datasets]]\nx = 1\n", "general is not a table"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "d.toml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_musubi_toml(tmp_path / "d.toml")


def test_missing_and_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_musubi_toml(tmp_path / "none.toml")
    (tmp_path / "d.toml").write_bytes(b"# caf\xe9")
    with pytest.raises(UserError, match="not UTF-8 at byte 5"):
        read_musubi_toml(tmp_path / "d.toml")


def test_what_musubi_does_with_sizes_when_buckets_are_not_mentioned(tmp_path: Path) -> None:
    """It crops images to the resolution; videos it puts into buckets all the same."""
    text = '[[datasets]]\nimage_directory = "a"\n[[datasets]]\nvideo_directory = "b"\n'
    (tmp_path / "d.toml").write_text(text)
    assert [entry.get("enable_bucket") for entry in read_musubi_toml(tmp_path / "d.toml")] == [False, None]
    (tmp_path / "d.toml").write_text("[general]\nenable_bucket = true\n" + text)
    assert [entry.get("enable_bucket") for entry in read_musubi_toml(tmp_path / "d.toml")] == [True, True]
