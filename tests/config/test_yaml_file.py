"""How config.yaml is read: numbers, repeated keys, anchors, and files that are no config at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from hv15.config.yaml_file import read_yaml
from hv15.errors import UserError
from tests.config.conftest import Problems


def read(folder: Path, text: str) -> dict[str, object]:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return read_yaml(path).data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E3", 1000.0),
        (".5e-3", 5e-4),
        ("5.e-1", 0.5),
        ("-1.5E+2", -150.0),
        ("+.5", 0.5),
        ("1_000", 1000),
        ("0x10", 16),
        ("-7", -7),
        ("0", 0),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
    ],
)
def test_a_plain_value_becomes_what_it_looks_like(tmp_path: Path, text: str, value: object) -> None:
    found = read(tmp_path, f"key: {text}")["key"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text", ["yes", "no", "on", "off", "12:30:45", "2024-01-01", "1e", "e5", "1.2.3", "0123", "'1e-4'", "none"]
)
def test_other_words_stay_text(tmp_path: Path, text: str) -> None:
    """YAML 1.1 would make booleans, seconds, dates and octal numbers of some of these."""
    assert read(tmp_path, f"key: {text}")["key"] == text.strip("'")


def test_anchors_and_merge_keys_work_and_own_keys_win(tmp_path: Path) -> None:
    data = read(tmp_path, "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a\nd:\n  - <<: [*a, {z: 5}]\n    x: 9\n")
    assert data["b"] == {"x": 1, "y": 3}
    assert data["c"] == {"x": 1, "y": 2}
    assert data["d"] == [{"x": 9, "y": 2, "z": 5}]


def test_every_repeated_key_is_named_with_both_lines(problems: Problems) -> None:
    lines = problems("task: t2v\ntrain:\n  seed: 1\n  seed: 2\ntask: i2v\n", base=False)
    assert lines == [
        "config.yaml:4:3 train.seed: is a duplicate: the key is already in line 3",
        "config.yaml:5:1 task: is a duplicate: the key is already in line 1",
    ]


def test_a_mapping_used_twice_by_alias_has_no_repeated_keys(tmp_path: Path) -> None:
    assert read(tmp_path, "a: &a {x: 1}\nb: {<<: *a}\nc: {<<: *a}\nd: [*a, *a]")["c"] == {"x": 1}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "config.yaml: is empty"),
        (b"# only a comment\n", "config.yaml: is empty"),
        (b"- a\n- b\n", "config.yaml:1:1: found a list, expected settings such as `task: t2v`"),
        (b"hello\n", "config.yaml:1:1: found text, expected settings such as `task: t2v`"),
        (b"a: b: c\n", "config.yaml:1:5: is not YAML: mapping values are not allowed here"),
        (b"train:\n\tseed: 1\n", r"config.yaml:2:1: is not YAML: found character '\t' that cannot start any token"),
        (b"a: [1, 2\nb: 3\n", "config.yaml:2:2: is not YAML: expected ',' or ']', but got ':'"),
        (
            b"a: 1\n---\nb: 2\n",
            "config.yaml:2:1: is not YAML: expected a single document in the stream, but found another document",
        ),
        (b"a: *nobody\n", "config.yaml:1:4: is not YAML: found undefined alias 'nobody'"),
        (b"task: t2v\nx: '\xff'\n", "config.yaml:2: is not UTF-8"),
        (b"a: \x07\n", "config.yaml:1:4: is not YAML: found the control character 0x07"),
        (b"a: [0x_]\n", "config.yaml:1:5: a number cannot be read: invalid literal for int() with base 16: ''"),
        (
            b"a: " + b"9" * 6000,
            "config.yaml:1:4 a: found a number of 6,000 digits, expected at most 400",
        ),
        (b"a: " + b"[" * 3000, "config.yaml: is nested too deeply"),
        (b"1: x\n", "config.yaml:1:1 1: expected a name as the key; if it is a name, put it in quotes"),
        (b"? [a]\n: x\n", "config.yaml:1:3: expected a name as the key; if it is a name, put it in quotes"),
    ],
)
def test_a_file_that_is_no_config_gives_one_clear_message(problems: Problems, content: bytes, expected: str) -> None:
    assert problems(content, base=False)[0] == expected


def test_no_python_object_is_made_from_a_tag(problems: Problems) -> None:
    (line, *_) = problems("a: !!python/object/apply:os.system ['true']\n", base=False)
    assert (
        line
        == "config.yaml:1:4 a: found the tag !!python/object/apply:os.system, expected plain values: leave the tag out"
    )


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.yaml: no such file"):
        read_yaml(tmp_path / "nothing.yaml")
    with pytest.raises(UserError, match="is a folder"):
        read_yaml(tmp_path)


def test_a_value_that_contains_itself_is_refused_at_its_place(problems: Problems) -> None:
    line, hint = problems("models: {source: demo}\ndatasets: &a [*a]\n", base=False)
    assert line == "config.yaml:2:11 datasets[0]: contains itself"
    assert hint == "  hint: look at the anchors (&name) and aliases (*name)"
    line, _ = problems("a: &a\n  b: {c: *a}\n  d: 1\n", base=False)
    assert line == "config.yaml:2:7 a.b.c: contains itself"


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufefftask: i2v\n") == {"task": "i2v"}


def test_positions_are_those_of_values_and_of_keys(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "a:\n  b: 1\n  c: [2, 3]\n  d:\n    - e: 4\nf: &f {g: 5}\nh:\n  <<: *f\n  i: 6\nj: {<<: *f, g: 7}\n",
        encoding="utf-8",
    )
    file = read_yaml(path)
    assert file.position(("a", "b")) == (2, 6)
    assert file.position(("a", "b"), of_key=True) == (2, 3)
    assert file.position(("a", "c", 1)) == (3, 10)
    assert file.position(("a", "d", 0, "e")) == (5, 10)
    assert file.position(("h", "g")) == (6, 11)  # merged: where it was written
    assert file.position(("j", "g")) == (10, 16)  # its own value, not the merged one
    assert file.position(("a", "nowhere")) == (1, 1)  # the heading that it is missing under
    assert file.position(("nowhere",)) == (1, 1)
