"""CITATION.cff is valid, and of this version."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import jsonschema
import yaml

ROOT = Path(__file__).parents[1]
SCHEMA = ROOT / "tests/golden/citation_file_format_1.2.0.json"
"""The schema of the Citation File Format 1.2.0 (citation-file-format.github.io, CC BY 4.0), as in cffconvert 2.0.0."""


def citation() -> dict[str, object]:
    return yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_the_file_is_valid() -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft7Validator.check_schema(schema)
    assert [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(citation())] == []
    wrong = {**citation(), "licence": "Apache-2.0"}
    assert any(jsonschema.Draft7Validator(schema).iter_errors(wrong))


def test_it_is_of_the_version_and_licence_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (citation()["version"], citation()["license"]) == (project["version"], project["license"])
