"""What the tests of `hv15 sample` share: small samples, and what a command says that it has made."""

from __future__ import annotations

from pathlib import Path

from hv15.project.metadata import product_metadata
from hv15.records.json_values import parse_object
from hv15.records.metadata import SAMPLE
from hv15.sample.prompts import SampleSpec
from tests.commands.workbench import Said

SMALL = ("--size", "64", "64", "--frames", "5", "--steps", "2")


def made(said: Said) -> list[Path]:
    """The files that a command names, after it went well."""
    assert said.code == 0, said.err
    return [
        Path(line.removesuffix(": already there"))
        for line in said.err.splitlines()
        if line.endswith((".mp4", ".frames", ".safetensors", "there"))
    ]


def spec_of(file: Path) -> SampleSpec:
    """What a file says that it is."""
    return SampleSpec.from_json(parse_object(product_metadata(file)[SAMPLE]))
