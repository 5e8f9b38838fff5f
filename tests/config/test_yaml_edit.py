from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hv15.config.presets import preset_names, preset_text
from hv15.config.yaml_edit import add_entry, remove_value, set_value
from hv15.config.yaml_file import read_yaml
from hv15.config.yaml_places import location_at
from hv15.config.yaml_text import scalar
from hv15.errors import UserError
from tui.data.yaml_lines import with_line_ends

TEXT = """\
# a project
task: t2v   # or i2v

train:
  learning_rate: 1e-4 # low
  seed:   7
  optimizer_args: {weight_decay: 0.1, betas: [0.9, 0.99]}   # flow

  # about names
  include_patterns:
    - "a.*"   # first
    - b
datasets:
- video_directory: clips
  resolution: [64, 64]
-   # the second
  video_directory: 'more clips'
  caption_prefix: >
    a long
    text
  num_repeats: 2
sample:
# nothing yet

convert: # empty
"""


def data(text: str) -> dict[str, Any]:
    return read_yaml(Path("c"), text).data


def scalars(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The locations of all values that are no mappings and no lists."""
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from scalars(each, (*at, key))
    else:
        yield at


@pytest.mark.parametrize(
    ("location", "value", "old", "new"),
    [
        (("task",), "i2v", "task: t2v   #", "task: i2v   #"),
        (("train", "seed"), 8, "seed:   7\n", "seed:   8\n"),
        (("train", "optimizer_args", "weight_decay"), 0.2, "decay: 0.1,", "decay: 0.2,"),
        (("train", "optimizer_args", "betas", 1), 0.5, "0.99]", "0.5]"),
        (("train", "optimizer_args", "eps"), 1e-8, "0.99]}", "0.99], eps: 1e-08}"),
        (("train", "include_patterns", 0), "x y", '"a.*"', '"x y"'),
        (("train", "include_patterns"), ["a.*", "c: d"], "    - b\n", '    - "c: d"\n'),
        (("train", "include_patterns"), ["a.*", "b", "c"], "    - b\n", "    - b\n    - c\n"),
        (("train", "include_patterns"), ["a.*"], "    - b\n", ""),
        (("train", "network_dim"), 8, "    - b\n", "    - b\n  network_dim: 8\n"),
        (("datasets", 0, "resolution"), [80, 64], "[64, 64]", "[80, 64]"),
        (("datasets", 0, "resolution"), 64, "[64, 64]", "64"),
        (("datasets", 0, "num_repeats"), 3, "[64, 64]\n", "[64, 64]\n  num_repeats: 3\n"),
        (("datasets", 1, "video_directory"), "it's", "'more clips'", "'it''s'"),
        (("datasets", 1, "caption_prefix"), "b: ", ">\n    a long\n    text\n", '"b: "\n'),
        (("sample", "seed"), 1, "sample:\n", "sample:\n  seed: 1\n"),
        (("convert", "formats"), ["comfyui"], "convert: # empty\n", "convert: # empty\n  formats: [comfyui]\n"),
        (("cache", "shards"), 2, "convert: # empty\n", "convert: # empty\ncache:\n  shards: 2\n"),
        (("task",), "yes: no\n# x", "t2v ", '"yes: no\\n# x" '),
        (("task",), "true", "t2v ", '"true" '),
        (("task",), "1e5", "t2v ", '"1e5" '),
        (("task",), "", "t2v ", '"" '),
        (("task",), "\x1b[31m", "t2v ", '"\\u001b[31m" '),
        (("task",), "bébé 🙂", "t2v ", "bébé 🙂 "),
    ],
)  # fmt: skip
def test_an_edit_changes_these_bytes_and_no_others(location: Any, value: Any, old: str, new: str) -> None:
    assert TEXT.count(old) == 1
    assert set_value(TEXT, location, value) == TEXT.replace(old, new)


def test_a_number_stays_as_it_was_typed() -> None:
    text = set_value(TEXT, ("train", "learning_rate"), None, literal="2.5e-5")
    assert text == TEXT.replace("1e-4", "2.5e-5")
    assert set_value(TEXT, ("sample", "fps"), None, literal="24.0").count("\n  fps: 24.0\n") == 1
    with pytest.raises(UserError):
        set_value(TEXT, ("train", "seed"), None, literal="1, b: [")


@pytest.mark.parametrize(
    ("location", "gone"),
    [
        (("train", "seed"), "  seed:   7\n"),
        (("train", "optimizer_args", "betas"), ", betas: [0.9, 0.99]"),
        (("train", "optimizer_args", "weight_decay"), "weight_decay: 0.1, "),
        (("train", "include_patterns", 0), '    - "a.*"   # first\n'),
        (("datasets", 0), "- video_directory: clips\n  resolution: [64, 64]\n"),
        (("datasets", 1, "caption_prefix"), "  caption_prefix: >\n    a long\n    text\n"),
        (("datasets", 0, "video_directory"), "video_directory: clips\n  "),
        (("convert",), "convert: # empty\n"),
    ],
)
def test_a_removal_takes_these_bytes_and_no_others(location: Any, gone: str) -> None:
    assert TEXT.count(gone) == 1
    assert remove_value(TEXT, location) == TEXT.replace(gone, "")


def test_the_last_key_of_a_section_leaves_its_heading() -> None:
    text = "a: 1\ntrain:\n  seed: 1 # one\nb: 2\n"
    assert remove_value(text, ("train", "seed")) == "a: 1\ntrain:\nb: 2\n"
    assert data(remove_value("p:\n  - a: 1\n# end\n", ("p", 0))) == {"p": []}


def test_entries_are_added_as_the_others_are_written() -> None:
    added = add_entry(TEXT, ("datasets",), {"image_directory": "stills", "resolution": [64, 64]})
    assert added == TEXT.replace(
        "  num_repeats: 2\n", "  num_repeats: 2\n- image_directory: stills\n  resolution: [64, 64]\n"
    )
    prompts = add_entry(TEXT, ("sample", "prompts"), {"name": "a", "prompt": 'a "b": c'})
    assert prompts == TEXT.replace(
        "sample:\n",
        "sample:\n  prompts:\n    - name: a\n      prompt: 'a \"b\": c'\n".replace("'a \"b\": c'", '"a \\"b\\": c"'),
    )
    again = add_entry(prompts, ("sample", "prompts"), {"name": "b", "prompt": "c"})
    assert data(again)["sample"]["prompts"][1] == {"name": "b", "prompt": "c"}
    with pytest.raises(UserError, match="not a list"):
        add_entry(TEXT, ("task",), 1)


def test_what_an_anchor_shares_is_refused_and_what_an_alias_takes_is_replaced() -> None:
    text = "a: &x 5 # five\nb: *x\nc: {d: *x, e: 1}\nm: &m\n  k: 1\nn:\n  <<: *m\n"
    with pytest.raises(UserError, match="without touching other parts"):
        set_value(text, ("a",), 6)
    assert set_value(text, ("b",), 6) == text.replace("b: *x", "b: 6")
    assert set_value(text, ("c", "d"), 6) == text.replace("d: *x", "d: 6")
    assert set_value(text, ("n", "k"), 2) == text + "  k: 2\n"
    with pytest.raises(UserError):
        set_value(text, ("m", "k"), 3)


@pytest.mark.parametrize("newline", ["\r\n", "\n"])
@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_byte_order_marks_stay(newline: str, end: str, mark: str) -> None:
    text = f"{mark}task: t2v{newline}train:{newline}  seed: 1{end and newline}"
    assert set_value(text, ("train", "seed"), 22) == text.replace("1", "22")
    longer = set_value(text, ("train", "lr"), 0.5)
    assert longer.rstrip() == f"{text.rstrip()}{newline}  lr: 0.5"
    assert longer.endswith(newline) == bool(end)


LONG = ("demo", "i2v-16gb", "t2v-80gb")
"""Presets of many values."""
PRESETS = [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in preset_names()]


@pytest.mark.parametrize("name", PRESETS)
def test_every_value_of_every_preset_can_be_changed_alone(name: str) -> None:
    text = preset_text(name)
    for location in scalars(data(text)):
        changed = set_value(text, location, 987654321)
        before, after = text.splitlines(), changed.splitlines()
        assert len(before) == len(after)
        assert [new for old, new in zip(before, after, strict=True) if old != new] == [
            line for line in after if "987654321" in line
        ]
        assert set_value(changed, location, None) != changed
        remove_value(text, location)


VALUES: list[Any] = [
    *("x", "a: b", "- a", "# a", "a #b", "yes", "null", "1", "0x1f", "1e-4", ".5", "'", '"', "a'b", "[a", "{a", "a,b"),
    *("*a", "&a", "!a", "%a", "@a", "|", ">", " a", "a ", "a\nb", "tab\there", "~", "", "é", "\x7f", "2020-01-01"),
    *("a]", "key:", "?", "? a", "-", "\u2028", "\ud7ff", "<<"),
    *(1, -5, 1.5, 1e-05, 1e300, True, None, [], {}, [1, "a, b"], {"a": [1, {"b": "c: d"}]}),
]
PLACES: list[tuple[Any, ...]] = [
    *(("task",), ("sample", "new"), ("train", "optimizer_args", "weight_decay"), ("train", "optimizer_args", "new")),
    *(("train", "include_patterns", 1), ("datasets", 1, "caption_prefix")),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_any_value_is_read_back_wherever_it_is_written(value: Any) -> None:
    for location in PLACES:
        found: Any = data(set_value(TEXT, location, value))
        for part in location:
            found = found[part]
        assert type(found) is type(value)
        assert found == value
    if isinstance(value, str) and "\x7f" not in value and value != "<<":
        assert yaml.safe_load(f"k: {scalar('x' + value)}\n") == {"k": "x" + value}


def test_broken_text_is_refused() -> None:
    for text in ("a: [", "a: 1\na: 2\n", "", "- 1\n"):
        with pytest.raises(UserError):
            set_value(text, ("a",), 1)


def test_a_line_tells_its_setting() -> None:
    lines = TEXT.splitlines()
    assert location_at(TEXT, lines.index("  seed:   7") + 1) == ("train", "seed")
    assert location_at(TEXT, lines.index("    - b") + 1) == ("train", "include_patterns", 1)
    assert location_at(TEXT, lines.index("  num_repeats: 2") + 1) == ("datasets", 1, "num_repeats")
    assert location_at(TEXT, 1) == ()
    assert location_at("a: [", 1) == ()


@pytest.mark.parametrize(
    ("before", "lines", "after"),
    [
        ("a\r\nb\nc", ["a", "b", "c"], "a\r\nb\nc"),
        ("a\r\nb\nc\n", ["a", "x", "c", ""], "a\r\nx\nc\n"),
        ("a\r\nb\nc\n", ["a", "new", "b", "c", ""], "a\r\nnew|b\nc\n"),
        ("a\u2028b\rc\n", ["b", "c", ""], "b\rc\n"),
        ("a\nb", ["a", "b", "c"], "a\nb|c"),
        ("a\nb", ["a"], "a"),
        ("a\n", ["a"], "a"),
        ("", ["a", ""], "a|"),
        ("a\u2028", ["x", "a"], "x|a\u2028"),
    ],
)
def test_lines_that_stay_keep_their_ends(before: str, lines: list[str], after: str) -> None:
    assert with_line_ends(before, lines, "|") == after
