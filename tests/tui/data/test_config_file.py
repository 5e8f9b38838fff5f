from __future__ import annotations

import os
from pathlib import Path

import pytest

from hv15.config import Settings, fields
from hv15.config.presets import preset_text
from hv15.errors import UserError
from hv15.records.problems import Place
from tui.data.config_diff import Change
from tui.data.config_file import ConfigFile
from tui.data.config_form import LISTS, FormField

TEXT = """\
task: t2v  # or i2v
models: {source: demo}
datasets:
  - video_directory: clips
    resolution: [64, 64]
train:
  learning_rate: 1e-4  # low
  max_train_steps: 100
sample:
  prompts:
    - name: one
      prompt: a cat
"""


@pytest.fixture
def file(tmp_path: Path) -> ConfigFile:
    path = tmp_path / "config.yaml"
    path.write_text(TEXT)
    return ConfigFile.open(path)


def field(file: ConfigFile, *location: str | int) -> FormField:
    found = file.field(location)
    assert found is not None
    return found


def test_the_form_has_every_setting_of_the_models(file: ConfigFile) -> None:
    shown = {each.path for section in file.form() for each in section.fields}
    asked = {info.path for info in fields(Settings) if not info.is_section}
    asked = {path.replace("prompts[]", "prompts[0]") for path in asked}
    asked = {path.replace("datasets[]", "datasets[0]") if path.startswith("datasets[]") else path for path in asked}
    assert shown == {path for path in asked if "[]" not in path}
    titles = [section.title for section in file.form()]
    assert titles[:3] == ["Project", "models", "datasets[0]"]
    assert "sample.prompts[0]" in titles
    assert all(each.help for section in file.form() for each in section.fields)


def test_fields_tell_kind_value_and_default(file: ConfigFile) -> None:
    rate = field(file, "train", "learning_rate")
    assert (rate.kind, rate.text, rate.in_file, rate.changed) == ("float", "1e-4", True, False)
    steps = field(file, "train", "max_train_steps")
    assert (steps.kind, steps.text, steps.changed, steps.default_text) == ("int", "100", True, "1600")
    assert field(file, "task").choices == ("t2v", "i2v")
    assert field(file, "cache", "vae_sample_size").choices == ("0", "128", "256")
    optimizer = field(file, "train", "optimizer_type")
    assert (optimizer.kind, optimizer.choices[:2]) == ("text", ("AdamW", "AdamW8bit"))  # or the path of a class
    compiled = field(file, "train", "compile_dynamic")
    assert (compiled.kind, compiled.optional, compiled.text, compiled.in_file) == ("bool", True, "", False)
    assert field(file, "datasets", 0, "resolution").text == "[64, 64]"
    assert field(file, "datasets", 0, "target_frames").kind == "list"
    assert field(file, "models", "source").changed
    assert field(file, "train", "optimizer_args").kind == "mapping"
    assert field(file, "datasets", 0, "video_directory").kind == "path"
    assert field(file, "train", "blocks_to_swap").affects == "speed"
    assert rate.matches("RATE peak")
    assert not rate.matches("rate nonsense")


@pytest.mark.parametrize(
    ("location", "typed", "old", "new"),
    [
        (("train", "learning_rate"), "2.5e-5", "1e-4", "2.5e-5"),
        (("train", "max_train_steps"), "", "  max_train_steps: 100\n", ""),
        (("train", "max_train_steps"), "many", ": 100", ": many"),
        (("train", "network_dim"), "16", ": 100\n", ": 100\n  network_dim: 16\n"),
        (("models", "source"), "files", "demo", "files"),
        (("datasets", 0, "resolution"), "80, 64", "[64, 64]", "[80, 64]"),
        (("datasets", 0, "resolution"), "96", "[64, 64]", "96"),
        (("datasets", 0, "target_frames"), "9, 13", "[64, 64]\n", "[64, 64]\n    target_frames: [9, 13]\n"),
        (("train", "optimizer_args"), "{eps: 1}", ": 100\n", ": 100\n  optimizer_args:\n    eps: 1\n"),
        (("train", "compile_dynamic"), "true", ": 100\n", ": 100\n  compile_dynamic: true\n"),
        (("cache", "vae_sample_size"), "128", "a cat\n", "a cat\ncache:\n  vae_sample_size: 128\n"),
        (("sample", "prompts", 0, "prompt"), "yes: 5", "a cat", '"yes: 5"'),
        (("sample", "prompts", 0, "seed"), "5", "a cat\n", "a cat\n      seed: 5\n"),
    ],
)  # fmt: skip
def test_what_is_typed_into_a_field(
    file: ConfigFile, location: tuple[str | int, ...], typed: str, old: str, new: str
) -> None:
    file.set_text(location, typed)
    assert file.text == TEXT.replace(old, new)
    assert file.dirty
    assert bool(file.problems) == (typed in ("many", "files"))
    assert file.undo()
    assert (file.text, file.dirty) == (TEXT, False)
    assert file.redo()
    assert file.text == TEXT.replace(old, new)


def test_problems_have_their_place_and_stand_at_their_field(file: ConfigFile) -> None:
    file.replace_text(TEXT.replace("max_train_steps: 100", "max_train_steps: -1\n  learning_rat: 1"))
    first, second = file.problems
    assert first.place == Place(file.path, 8, 20, ("train", "max_train_steps"))
    assert str(second).startswith(f"{file.path}:9:3 train.learning_rat: unknown key; did you mean 'learning_rate'?")
    assert "above 0" in field(file, "train", "max_train_steps").problem
    assert file.settings is None


def test_while_the_text_is_broken_the_form_stays(file: ConfigFile) -> None:
    file.replace_text(TEXT + "a: [")
    [problem] = file.problems
    assert (problem.place.line or 0) > 1
    assert "not YAML" in problem.message
    assert field(file, "train", "learning_rate").text == "1e-4"
    with pytest.raises(UserError):
        file.set(("task",), "i2v")
    file.replace_text("")
    assert "is empty" in file.problems[0].message
    file.replace_text("a: a\x00")
    assert file.problems
    file.replace_text("a: " + "[" * 600)
    assert file.problems


def test_a_dataset_toml_is_one_field(file: ConfigFile) -> None:
    file.set(("datasets",), "data.toml")
    assert field(file, "datasets").text == "data.toml"
    assert "data.toml" in file.problems[0].message


def test_entries(file: ConfigFile) -> None:
    for each in LISTS:
        file.add_entry(each.location, each.start)
    assert file.problems == ()
    assert file.settings is not None
    assert len(file.settings.datasets) == 2
    file.remove_entry(("datasets", 0))
    file.remove_entry(("sample", "prompts", 1))
    assert file.settings.sample.prompts[0].name == "one"
    assert [prompt.name for prompt in file.settings.sample.prompts] == ["one"]


def test_an_editor_that_repeats_what_it_was_given_types_nothing(tmp_path: Path) -> None:
    file = ConfigFile(tmp_path / "config.yaml", TEXT, monotonic=lambda: 0.0)
    file.set_text(("train", "max_train_steps"), "7")
    changed = file.text
    file.replace_text(changed)
    file.replace_text(changed + "a")
    file.undo()
    assert file.text == changed


def test_typing_is_undone_in_one_step(tmp_path: Path) -> None:
    now = [0.0]
    path = tmp_path / "config.yaml"
    path.write_text(TEXT)
    file = ConfigFile(path, TEXT, monotonic=lambda: now[0])
    for letter in "abc":
        file.replace_text(file.text + letter)
        now[0] += 0.2
    now[0] += 5
    file.replace_text(file.text + "d")
    file.undo()
    assert file.text == TEXT + "abc"
    file.undo()
    assert file.text == TEXT


def test_saving(file: ConfigFile) -> None:
    file.path.chmod(0o640)
    file.set(("train", "seed"), 3)
    file.save()
    assert not file.dirty
    assert file.path.read_text() == file.text
    assert file.path.stat().st_mode & 0o777 == 0o640
    file.set(("train", "seed"), 4)
    file.path.write_text(TEXT)
    assert file.changed_on_disk()
    with pytest.raises(UserError, match="changed by another program"):
        file.save()
    assert [line.text for line in file.diff_disk() if line.sign != " "] == ["  seed: 4"]
    file.save(force=True)
    assert "seed: 4" in file.path.read_text()
    file.path.write_text(TEXT)
    file.reload()
    assert (file.text, file.dirty) == (TEXT, False)
    assert file.undo()


def test_a_link_stays_a_link(file: ConfigFile, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "config.yaml"
    link.parent.mkdir()
    link.symlink_to(file.path)
    linked = ConfigFile.open(link)
    linked.set(("task",), "t2v")
    linked.set(("train", "seed"), 9)
    linked.save()
    assert link.is_symlink()
    assert "seed: 9" in file.path.read_text()


def test_the_run_s_copy_is_compared_by_value(file: ConfigFile, tmp_path: Path) -> None:
    copy = tmp_path / "copy.yaml"
    copy.write_text(TEXT.replace("1e-4  # low", "0.0001").replace("steps: 100", "steps: 200"))
    assert file.changes_with(copy) == [Change("train.max_train_steps", "200", "100")]
    assert file.diff_with(tmp_path / "nothing") != []


def test_bytes_that_are_not_its_own_stay(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    text = "\ufeff" + preset_text("t2v-24gb").replace("\n", "\r\n")
    path.write_bytes(text.encode())
    file = ConfigFile.open(path)
    assert not file.changed_on_disk()
    file.set(("train", "seed"), 4242)
    file.save()
    saved = path.read_bytes().decode()
    assert saved.count("\r\n") in (text.count("\r\n"), text.count("\r\n") + 1)
    assert "\n" not in saved.replace("\r\n", "")


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    for content in (None, b"\xff\xfe\x00"):
        path = tmp_path / "config.yaml"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UserError, match=r"config\.yaml"):
            ConfigFile.open(path)


def test_a_write_protected_file_is_left_alone(file: ConfigFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anything
    file.set(("train", "seed"), 9)
    for force in (False, True):
        with pytest.raises(UserError, match="is write-protected"):
            file.save(force=force)
    assert file.path.read_text() == TEXT
    assert file.dirty
    file.path.unlink()
    file.save()
    assert file.path.read_text() == file.text


def test_a_text_that_never_was_yaml_has_no_form(tmp_path: Path) -> None:
    file = ConfigFile(tmp_path / "config.yaml", TEXT + "task: i2v\n")
    assert file.form() == ()
    file.replace_text(TEXT)
    assert field(file, "train", "max_train_steps").text == "100"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("&a {b: *a}", "contains itself"),
        ("9" * 6000, "a number of 6,000 digits"),
        ("0x_", "cannot be read"),
        ("[" * 600, "deep"),
    ],
    ids=["circle", "digits", "hex", "depth"],
)
def test_values_that_python_gives_up_on_are_refused(file: ConfigFile, value: str, words: str) -> None:
    file.replace_text(TEXT + f"extra: {value}\n")
    assert file.problems
    assert file.changes_with(file.path) == []
    with pytest.raises(UserError, match=words):
        file.set(("task",), "i2v")
    file.replace_text(TEXT)
    file.set(("task",), "i2v")
    assert "task: i2v" in file.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(file: ConfigFile) -> None:
    file.set(("train", "seed"), 9)
    file.path.parent.chmod(0o500)
    try:
        with pytest.raises(UserError, match="cannot be written"):
            file.save()
    finally:
        file.path.parent.chmod(0o700)
