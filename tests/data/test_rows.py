"""JSONL files as people and machines write them."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hv15.config.datasets import DatasetSettings
from hv15.data import rows
from hv15.data.scan import survey
from hv15.data.survey import Survey
from hv15.errors import UserError
from tests.data.scanned import scan
from tests.data.test_scan import put

VIDEOS = DatasetSettings(video_jsonl_file="v.jsonl")


def read(root: Path, content: str | bytes, **more: object) -> Survey:
    (root / "v.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode())
    return survey(DatasetSettings.model_validate({"video_jsonl_file": "v.jsonl", **more}), root)


def test_where_a_caption_stands(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4", "b.mp4", caption=None)
    found = read(
        tmp_path, '{"video_path": "a.mp4", "caption": "x"}\n\n{"video_path": "b.mp4", "caption": " y\\r\\nz "}\n'
    )
    assert [(source.caption, source.row) for source in found.sources] == [("x", 0), ("y\nz", 2)]
    assert {source.caption_file for source in found.sources} == {str(tmp_path / "v.jsonl")}


def test_a_row_without_a_caption_may_have_the_default(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4", caption=None)
    content = (
        '{"video_path": "a.mp4"}\n{"video_path": "a.mp4", "caption": null}\n{"video_path": "a.mp4", "caption": ""}'
    )
    found = read(tmp_path, content, default_caption="a clip")
    assert [(source.caption, source.is_default) for source in found.sources] == [("a clip", True)] * 2 + [("", False)]
    assert found.empty == [str(tmp_path / "a.mp4")]
    assert len(read(tmp_path, content).problems) == 2
    assert len(read(tmp_path, '{"video_path": "a.mp4", "caption": 3}', default_caption="a clip").problems) == 1


def test_accents_in_either_form(tmp_path: Path) -> None:
    for number, (on_disk, written) in enumerate((("NFC", "NFD"), ("NFD", "NFC"))):
        name = f"café{number}.mp4"
        put(tmp_path, unicodedata.normalize(on_disk, name), caption=None)
        row = {"video_path": unicodedata.normalize(written, name), "caption": "x"}
        assert len(read(tmp_path, json.dumps(row)).sources) == 1


@pytest.mark.parametrize(
    ("content", "message", "cure"),
    [
        ('[{"video_path": "a.mp4", "caption": "x"}]', "v.jsonl: found a JSON array", "jq -c '.[]'"),
        ('\ufeff[\n  {"video_path": "a.mp4"}\n]', "v.jsonl: found a JSON array", "jq -c '.[]'"),
        (
            '{\n  "video_path": "a.mp4",\n "caption": "x"}\n{\n',
            "v.jsonl: found a JSON object over several lines",
            "jq -c .",
        ),
        (
            '{"video_path": "D:\\clips\\a.mp4", "caption": "x"}',
            "v.jsonl:1:19: not JSON: Invalid",
            "D:/clips/a",
        ),
        (
            '{"video_path": "D:\\train\\a.mp4", "caption": "x"}',
            "v.jsonl:1:25: not JSON",
            "a backslash begins an escape",
        ),
        ('{"video_path": "D:\\tmp\\new.mp4", "caption": "x"}', r"v.jsonl:1: 'D:\tmp\new.mp4' does not", "is a tab"),
        ('{"video_path": "D:\\\\clips\\\\a.mp4", "caption": "x"}', "does not exist", "in WSL it is /mnt/d/clips/a.mp4"),
        ('{"video_path": "C:/clips/a.mp4", "caption": "x"}', "does not exist", "in WSL it is /mnt/c/clips/a.mp4"),
        ('{"video_path": "clips\\\\a.mp4", "caption": "x"}', "does not exist", "instead of backslashes: clips/a.mp4"),
    ],
)
def test_hints_name_the_real_cure(tmp_path: Path, content: str, message: str, cure: str) -> None:
    put(tmp_path / "clips", "a.mp4", caption=None)
    (problem,) = read(tmp_path, content).problems
    assert message in str(problem)
    assert cure in problem.hint
    with pytest.raises(UserError) as caught:
        scan(VIDEOS, tmp_path)
    assert cure in caught.value.hint


def test_a_windows_folder_in_the_config(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        scan(DatasetSettings(video_directory="D:\\train"), tmp_path)
    assert "in WSL it is /mnt/d/train" in caught.value.hint


@pytest.mark.parametrize("other", ["pipe", "device", "folder"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, other: str) -> None:
    if other == "pipe":
        os.mkfifo(tmp_path / "v.jsonl")
    elif other == "device":
        (tmp_path / "v.jsonl").symlink_to("/dev/zero")
    else:
        (tmp_path / "v.jsonl").mkdir()
    (problem,) = survey(VIDEOS, tmp_path).problems
    assert ("not a regular file" if other != "folder" else "expected a file, found a folder") in str(problem)


def test_a_file_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MOST_BYTES", 1 << 20)
    (problem,) = read(tmp_path, b"\n" * (1 << 21)).problems
    assert "v.jsonl: cannot be read: 2 MiB, expected at most 1 MiB" in str(problem)


values = st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=4)
objects = st.dictionaries(st.sampled_from(["video_path", "caption", "control_path"]) | st.text(max_size=5), values)


@pytest.mark.slow
@given(
    st.lists(objects.map(json.dumps) | st.text() | st.sampled_from(["[", "{", '{"video_path": "a.mp4"']), max_size=5)
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_rows_are_sources_or_sentences(tmp_path: Path, lines: list[str]) -> None:
    found = read(tmp_path, "\n".join(lines).encode("utf-8", "surrogatepass"))
    assert found.sources or found.problems
    assert all(str(problem) for problem in found.problems)
