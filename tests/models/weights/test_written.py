"""Sizes that other programs wrote: read by type, with defaults, and refused by name."""

from __future__ import annotations

import pytest

from hv15.errors import UserError
from hv15.models.weights.written import WrittenSizes, sizes_in_text

WRITTEN = sizes_in_text(
    '{"heads": 4, "theta": 10, "axes": [2, 3], "none": null, "inner": {"heads": 5}}', "a.safetensors"
)


def test_what_is_written_and_what_is_not():
    assert WRITTEN.integer("heads", 1) == 4
    assert WRITTEN.number("theta", 1.0) == 10.0
    assert WRITTEN.integers("axes", (1,)) == (2, 3)
    assert (WRITTEN.integer("none", 7), WRITTEN.number("absent", 0.5), WRITTEN.integers("absent", None)) == (
        7,
        0.5,
        None,
    )


def test_a_part_of_it():
    assert WRITTEN.part("inner").integer("heads", 1) == 5
    assert WRITTEN.part("absent") is WRITTEN
    both = WRITTEN.with_default(WrittenSizes({"heads": 9, "width": 3}, "b"))
    assert (both.integer("heads", 1), both.integer("width", 1)) == (4, 3)


@pytest.mark.parametrize("value", ['"4"', "4.5", "true", "[4]", "{}"])
def test_a_value_of_another_type_is_named(value: str):
    with pytest.raises(
        UserError, match=r"^a\.safetensors: heads in its metadata or config\.json is .*, expected a whole"
    ):
        sizes_in_text(f'{{"heads": {value}}}', "a.safetensors").integer("heads", 1)


@pytest.mark.parametrize("value", ['"4"', "true", "[4]"])
def test_no_number(value: str):
    with pytest.raises(UserError, match="expected a number"):
        sizes_in_text(f'{{"theta": {value}}}', "a.safetensors").number("theta", 1.0)


@pytest.mark.parametrize("value", ["4", "[4, 0.5]", "[[4]]", "[true]", '"16,56,56"'])
def test_no_list_of_whole_numbers(value: str):
    with pytest.raises(UserError, match="expected a list of whole numbers"):
        sizes_in_text(f'{{"axes": {value}}}', "a.safetensors").integers("axes", None)


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_no_json_object(text: str):
    with pytest.raises(UserError, match=r"a\.safetensors: the sizes in its metadata cannot be read"):
        sizes_in_text(text, "a.safetensors")
