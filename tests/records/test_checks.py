"""Checks as records: what one process prints, another reads as the same objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hv15.records.checks import VERSION, Check, checks_json, problem_checks, read_checks
from hv15.records.json_values import RecordError, parse_object
from hv15.records.problems import ConfigError, Place, Problem

CHECKS = (
    Check("ok", "dit", "8.3 billion parameters", place=Place(Path("models/dit.safetensors"))),
    Check("note", "lora", "it was trained for i2v", place=Place(setting=("sample", "loras", 0, "path"))),
    Check("problem", "config", "found x", "write a number", Place(Path("a.yaml"), 3, 15, ("train", "seed"))),
    Check("problem", "unusable", "caf\udce9.mp4: empty file"),
)


def test_what_is_written_is_read() -> None:
    assert read_checks(parse_object(json.dumps(checks_json(CHECKS)))) == CHECKS


def test_fields_of_a_later_hv15_are_passed_over() -> None:
    content: Any = json.loads(json.dumps(checks_json(CHECKS)))
    content["machine"] = "of no interest"
    for each in content["checks"]:
        each["severity"] = 3
        each["place"]["offset"] = 12
    assert read_checks(content) == CHECKS


def test_a_check_needs_no_more_than_it_has_to() -> None:
    content = {"version": VERSION, "checks": [{"state": "ok", "subject": "disk", "message": "free"}]}
    assert read_checks(content) == (Check("ok", "disk", "free"),)


GOOD = {"state": "ok", "subject": "disk", "message": "free"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "version: expected a whole number, found None"),
        ({"version": VERSION + 1, "checks": []}, "is of version 2, but this hv15 understands only versions up to 1"),
        ({"version": VERSION}, "checks is missing"),
        ({"version": VERSION, "checks": [3]}, "checks: expected an object, found 3"),
        ({"version": VERSION, "checks": [GOOD | {"state": "fine"}]}, "state: expected one of ok, note, problem"),
        ({"version": VERSION, "checks": [GOOD | {"message": None}]}, "message: expected text, found None"),
        ({"version": VERSION, "checks": [GOOD | {"place": {"line": "3"}}]}, "line: expected a whole number"),
        ({"version": VERSION, "checks": [GOOD | {"place": {"file": 3}}]}, "file: expected a path, found 3"),
        ({"version": VERSION, "checks": [GOOD | {"place": {"setting": "a"}}]}, "setting: expected a list, found 'a'"),
        (
            {"version": VERSION, "checks": [GOOD | {"place": {"setting": [1.5]}}]},
            "setting: expected text, found 1.5; or expected a whole number, found 1.5",
        ),
    ],
)
def test_what_is_no_check_is_refused(content: dict[str, Any], words: str) -> None:
    with pytest.raises(RecordError, match=words):
        read_checks(content)


def test_the_text_names_the_file_and_the_hint() -> None:
    assert [each.text for each in CHECKS] == [
        "models/dit.safetensors: 8.3 billion parameters",
        "it was trained for i2v",
        "a.yaml:3:15 train.seed: found x\nhint: write a number",
        "caf\udce9.mp4: empty file",
    ]


def test_each_problem_of_a_config_is_a_check() -> None:
    place = Place(Path("a.yaml"), 3, 15, ("train", "seed"))
    error = ConfigError([Problem("found x", "write a number", place), Problem("is empty")])
    assert problem_checks(error) == (
        Check("problem", "config", "found x", "write a number", place),
        Check("problem", "config", "is empty"),
    )
    assert [each.subject for each in problem_checks(error, "dataset")] == ["dataset", "dataset"]
