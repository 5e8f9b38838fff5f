"""A sample's description as JSON: it comes back as it was, and what is none is named."""

from __future__ import annotations

import dataclasses

import pytest

from hv15.errors import UserError
from hv15.records.json_values import Json
from hv15.sample.prompts import LoRAFile, SampleSpec


def test_json_and_back(spec: SampleSpec, image_of):
    whole = SampleSpec(**{**vars(spec), "image": image_of, "loras": (LoRAFile("a.safetensors", "f" * 64, 0.5),)})
    assert SampleSpec.from_json(whole.to_json()) == whole


@pytest.mark.parametrize(
    ("name", "value"),
    [("height", "tall"), ("task", "v2v"), ("image", {"path": "x.png"}), ("loras", [3]), ("seed", None)],
)
def test_a_value_of_another_type_is_named(spec: SampleSpec, name: str, value: Json):
    with pytest.raises(UserError, match=rf"^cat\.mp4: not a sample: wrong values: {name}"):
        SampleSpec.from_json({**spec.to_json(), name: value}, source="cat.mp4")


def test_a_missing_and_an_unknown_field_are_named(spec: SampleSpec):
    content = {name: value for name, value in spec.to_json().items() if name != "fps"}
    with pytest.raises(UserError, match=r"^cat\.mp4: .*: missing or unknown: fps, speed\n"):
        SampleSpec.from_json({**content, "speed": 1}, source="cat.mp4")


def test_what_is_done_to_its_json_does_not_change_a_spec(spec: SampleSpec):
    spec.to_json()["prompt"] = "another one"
    assert spec.to_json()["prompt"] == spec.prompt
    assert dataclasses.replace(spec, prompt="another one").to_json()["prompt"] == "another one"
