from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from hv15.config import Settings, load_config
from hv15.data.media import MediaKind
from hv15.data.probe import probe
from hv15.errors import UserError
from hv15.plan.dataset_clips import dataset_clips
from hv15.project import Project
from tests.data.videos import make_video
from tui.data import dataset
from tui.data.dataset import NO_CAPTION, DatasetReader, Item, preview, thumbnail, write_caption


def settings(*datasets: dict[str, Any]) -> Settings:
    return Settings.model_validate({"models": {"source": "demo"}, "datasets": list(datasets)})


def reader(root: Path, **more: Any) -> DatasetReader:
    dataset = {"video_directory": "clips", "resolution": [64, 64], "target_frames": [9, 17], **more}
    made = DatasetReader(settings(dataset), root)
    made.load()
    return made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with a good video, a short one, a damaged one, and one without a caption."""
    clips = tmp_path / "clips"
    clips.mkdir()
    make_video(clips / "a.mp4", 24)
    make_video(clips / "b.mp4", 10)
    (clips / "c.mp4").write_bytes(b"damaged")
    make_video(clips / "d.mp4", 4)
    for name in "abc":
        (clips / f"{name}.txt").write_text(f"  clip {name}\n")
    return tmp_path


def test_items_with_captions_buckets_and_problems(root: Path) -> None:
    made = reader(root, caption_prefix="zorp, ", num_repeats=2)
    a, b, c, d = made.items
    assert (a.caption, a.prefix, a.caption_file) == ("clip a", "zorp, ", root / "clips/a.txt")
    assert (d.problem, d.caption_file) == (NO_CAPTION, root / "clips/d.txt")
    assert made.overview().captions == 3
    assert list(made.probe()) == [0, 1, 2, 3]
    a, b, c, d = made.items
    assert (a.frames, a.height, a.width, a.seconds) == (24, 48, 64, 1.0)
    assert a.clips == ("9 x 64 x 64", "17 x 64 x 64")
    assert b.problem == "too short for 17 frames"
    assert c.problem.startswith("cannot be read as a video")
    assert d.problem == NO_CAPTION
    assert made.overview().buckets == {"9 x 64 x 64": 4, "17 x 64 x 64": 2}
    assert list(made.probe()) == []
    made.load()
    assert list(made.probe()) == []
    assert made.items == [a, b, c, d]
    made.replace(d, write_caption(d, "clip d"))
    assert "4 frames at 24 fps" in made.items[3].problem


def test_probing_can_be_cancelled(root: Path) -> None:
    cancel = threading.Event()
    steps = reader(root).probe(cancel)
    next(steps)
    cancel.set()
    assert list(steps) == []


def test_a_caption_that_is_edited_while_its_clip_is_looked_into_stays(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = reader(root)

    def slow(path: Path, kind: MediaKind) -> Any:
        if path.name in ("a.mp4", "d.mp4"):
            item = next(item for item in made.items if item.path == path)
            made.replace(item, write_caption(item, "edited"))
        return probe(path, kind)

    monkeypatch.setattr("hv15.data.probe.probe", slow)
    assert list(made.probe()) == [0, 1, 2, 3]
    assert [item.caption for item in made.items] == ["edited", "clip b", "clip c", "edited"]
    assert made.items[0].frames == 24


def test_a_caption_that_is_edited_while_its_facts_are_entered_stays(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The edit comes from another thread, at the worst moment: the old item is read, the new one not yet put back."""
    made, enter, editors = reader(root), dataset._with_facts, list[threading.Thread]()

    def entering(item: Item, facts: dataset.FileFacts) -> Item:
        if item.path.name == "a.mp4" and not editors:
            editors.append(threading.Thread(target=made.replace, args=(item, write_caption(item, "edited"))))
            editors[0].start()
            editors[0].join(timeout=0.3)
        return enter(item, facts)

    monkeypatch.setattr(dataset, "_with_facts", entering)
    assert list(made.probe()) == [0, 1, 2, 3]
    editors[0].join()
    assert (made.items[0].caption, made.items[0].frames) == ("edited", 24)


def test_an_edit_of_what_was_on_screen_before_the_file_was_looked_into_counts(root: Path) -> None:
    made = reader(root)
    shown = made.items[0]
    list(made.probe())
    made.replace(shown, write_caption(shown, "edited"))
    assert (made.items[0].caption, made.items[0].frames) == ("edited", 24)


def test_items_that_are_gone_meanwhile_are_not_put_back(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = reader(root)

    def slow(path: Path, kind: MediaKind) -> Any:
        if path.name == "a.mp4":
            made.items = made.items[1:]
        return probe(path, kind)

    monkeypatch.setattr("hv15.data.probe.probe", slow)
    list(made.probe())
    assert [item.path.name for item in made.items] == ["b.mp4", "c.mp4", "d.mp4"]


def test_a_caption_is_edited_in_its_file(root: Path) -> None:
    made = reader(root)
    made_new = write_caption(made.items[0], " a zorp \n second line ")
    assert (root / "clips/a.txt").read_text() == "a zorp \n second line\n"
    made.replace(made.items[0], made_new)
    assert made.items[0].caption == "a zorp \n second line"
    made.load()
    assert made.items[0].caption == "a zorp \n second line"
    added = write_caption(made.items[3], "now it has one")
    assert added.problem == ""
    assert (root / "clips/d.txt").read_text() == "now it has one\n"


def test_a_caption_that_somebody_else_changed_is_not_overwritten(root: Path) -> None:
    item = reader(root).items[0]
    (root / "clips/a.txt").write_text("another")
    with pytest.raises(UserError, match="changed by another program"):
        write_caption(item, "mine")
    assert (root / "clips/a.txt").read_text() == "another"


@pytest.mark.parametrize("text", ["half \ud83d", "zero \0 byte"])
def test_what_is_no_text_is_refused(root: Path, text: str) -> None:
    with pytest.raises(UserError, match="the caption holds"):
        write_caption(reader(root).items[0], text)


def rows(root: Path, *lines: bytes) -> tuple[Path, list[Item]]:
    file = root / "list.jsonl"
    file.write_bytes(b"\n".join(lines) + b"\n")
    made = DatasetReader(settings({"video_jsonl_file": "list.jsonl", "target_frames": [1]}), root)
    made.load()
    return file, made.items


def test_a_caption_is_edited_in_its_row_and_the_rest_stays(root: Path) -> None:
    lines = [
        b'{"video_path": "clips/a.mp4",   "caption": "caf\\u00e9", "id": 7}',
        b"not json",
        b'{"caption":"clips/b.mp4","video_path":"clips/b.mp4"}',
        b'{"video_path": "clips/a.mp4", "caption": "the same file again"}',
    ]
    file, (first, second, again) = rows(root, *lines)
    assert (first.caption, first.row, second.row, again.row) == ("café", 0, 2, 3)
    write_caption(first, 'new "é"')
    write_caption(second, "b")
    write_caption(again, "c")
    written = file.read_bytes().split(b"\n")
    assert written[0] == '{"video_path": "clips/a.mp4",   "caption": "new \\"é\\"", "id": 7}'.encode()
    assert written[1] == lines[1]
    assert json.loads(written[2]) == {"caption": "b", "video_path": "clips/b.mp4"}
    assert json.loads(written[3])["caption"] == "c"
    assert written[4:] == [b""]
    with pytest.raises(UserError, match="changed by another program"):
        write_caption(first, "once more")


def test_a_list_of_captions_is_edited_as_lines(root: Path) -> None:
    file = root / "list.jsonl"
    lines = [
        '{"video_path": "clips/a.mp4", "caption": ["short", "a long one"], "id": 7}',
        '{"video_path": "clips/b.mp4", "caption": ["short", "several\\nlines"]}',
        '{"video_path": "clips/a.mp4", "caption": "one, two"}',
    ]
    file.write_text("\n".join(lines))
    options = {"caption_variants": True, "tag_dropout": 0.5, "caption_versions": 40, "caption_prefix": "sks, "}
    made = DatasetReader(settings({"video_jsonl_file": "list.jsonl", **options}), root)
    made.load()
    first, second, third = made.items
    assert (first.caption, third.caption) == ("short\na long one", "one, two")
    texts = {f"sks, {text}" for text in ("short", "a long one", "several", "lines", "one, two", "one", "two", "")}
    assert made.overview().captions == len(texts)
    made.replace(first, write_caption(first, "brief\n\n another "))
    written = file.read_text().split("\n")
    assert written[0] == '{"video_path": "clips/a.mp4", "caption": ["brief", "another"], "id": 7}'
    assert written[1:] == lines[1:]
    with pytest.raises(UserError, match="one of these captions has several lines"):
        write_caption(second, "anything")


def test_a_default_caption_is_replaced_by_one_of_its_own(root: Path) -> None:
    item = reader(root, default_caption="a clip").items[3]
    assert (item.caption, item.problem, item.is_default) == ("a clip", "", True)
    added = write_caption(item, "now it has one")
    assert (added.caption, added.is_default) == ("now it has one", False)
    assert reader(root, default_caption="a clip").items[3].caption == "now it has one"
    file = root / "list.jsonl"
    file.write_text('{"video_path": "clips/a.mp4", "id": 7}\n')
    made = DatasetReader(settings({"video_jsonl_file": "list.jsonl", "default_caption": "a clip"}), root)
    made.load()
    write_caption(made.items[0], "a row of its own")
    assert json.loads(file.read_text()) == {"video_path": "clips/a.mp4", "id": 7, "caption": "a row of its own"}


def test_a_caption_is_edited_where_it_was_found(root: Path) -> None:
    """The case of its ending and the form of its accents may be others than expected."""
    (root / "clips/a.txt").rename(root / "clips/a.TXT")
    item = reader(root).items[0]
    assert item.caption_file.name == "a.TXT"
    write_caption(item, "edited")
    assert (root / "clips/a.TXT").read_text() == "edited\n"
    assert not (root / "clips/a.txt").exists()


def test_a_caption_with_windows_line_ends_can_be_edited(root: Path) -> None:
    (root / "clips/a.txt").write_bytes(b"one\r\ntwo\r\n")
    item = reader(root).items[0]
    assert item.caption == "one\ntwo"
    write_caption(item, "edited")
    assert (root / "clips/a.txt").read_bytes() == b"edited\n"


def test_pictures(root: Path) -> None:
    item = reader(root).items[0]
    assert thumbnail(item, 32, 32).shape == (24, 32, 3)
    assert preview(item, 32, 32).frames.shape == (24, 24, 32, 3)
    with pytest.raises(UserError):
        thumbnail(reader(root).items[2], 8, 8)


def test_a_dataset_that_is_not_there_is_told(tmp_path: Path) -> None:
    made = DatasetReader(settings({"video_directory": "clip"}, {"image_jsonl_file": "x.jsonl"}), tmp_path)
    (tmp_path / "clips").mkdir()
    made.load()
    assert made.items == []
    assert "clip: does not exist; did you mean" in made.error
    assert len(made.problems) == 2


def test_captions_that_are_not_utf_8_and_hold_escapes(root: Path) -> None:
    (root / "clips/a.txt").write_bytes(b"\xff\xfe")
    (root / "clips/b.txt").write_text("\x1b[31m[red]")
    made = reader(root)
    by_name = {item.path.name: item for item in made.items}
    assert sorted(by_name) == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]
    assert any("not UTF-8" in problem for problem in made.problems)
    assert by_name["a.mp4"].problem == "its caption: not UTF-8 but UTF-16"
    assert by_name["b.mp4"].caption == "\x1b[31m[red]"
    assert made.overview().captions == 2
    with pytest.raises(UserError, match="UTF-8"):
        write_caption(by_name["a.mp4"], "words")


def test_a_write_protected_caption_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "clip.txt"
    file.write_text("a clip\n")
    item = Item(0, tmp_path / "clip.mp4", "video", "a clip", file)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UserError, match="write-protected"):
        write_caption(item, "another")
    assert file.read_text() == "a clip\n"


def test_what_a_workflow_has_looked_into_is_not_opened_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "cd":
        (root / "clips" / f"{name}.mp4").unlink()
    config = {"models": {"source": "demo"}, "datasets": [{"video_directory": "clips", "target_frames": [9]}]}
    (root / "config.yaml").write_text(json.dumps(config))
    dataset_clips(Project(root / "config.yaml"))
    monkeypatch.setattr("hv15.data.probe.probe", None)
    made = DatasetReader(load_config(root / "config.yaml"), root)
    made.load()
    assert list(made.probe()) == [0, 1]
    assert [(item.frames, item.height) for item in made.items] == [(24, 48), (10, 48)]
