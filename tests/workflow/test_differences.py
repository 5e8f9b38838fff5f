"""How two specs differ, in the words of the config."""

from __future__ import annotations

import pytest

from hv15.records.json_values import Json, JsonObject
from hv15.workflow.differences import LONGEST, change_of_settings, differences


def lines(old: JsonObject, new: JsonObject, **names: str) -> list[str]:
    return list(differences(old, new, {name.replace("__", "."): words for name, words in names.items()}))


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        (4, 8, "4 -> 8"),
        (0.0001, 0.3, "0.0001 -> 0.3"),
        (None, 5, "not set -> 5"),
        (True, False, "true -> false"),
        ("fp8", "none", "fp8 -> none"),
        ("a cat", "", "'a cat' -> ''"),
        ([64, 64], [64, 80], "[64, 64] -> [64, 80]"),
        ({"a": 1}, None, '{"a": 1} -> not set'),
        ("“雪”", "ü", "“雪” -> ü"),
    ],
)
def test_old_and_new_value(before: Json, after: Json, shown: str) -> None:
    assert lines({"x": before}, {"x": after}) == [f"x {shown}"]


def test_equal_specs_differ_in_nothing() -> None:
    assert lines({"a": {"b": [1]}}, {"a": {"b": [1]}}) == []


def test_settings_are_called_by_their_place() -> None:
    old: JsonObject = {"train": {"seed": 1, "rate": 2, "args": {"decay": 0.1}}}
    new: JsonObject = {"train": {"seed": 1, "rate": 3, "args": {"decay": 0.2}}}
    assert lines(old, new) == ["train.rate 2 -> 3", "train.args.decay 0.1 -> 0.2"]


def test_lines_are_in_the_order_of_the_new_spec_and_what_is_gone_comes_last() -> None:
    assert lines({"gone": 1, "b": 1, "a": 1}, {"a": 2, "b": 2, "new": 2}) == [
        "a 1 -> 2",
        "b 1 -> 2",
        "new not set -> 2",
        "gone 1 -> not set",
    ]


def test_a_field_may_have_another_name_none_or_a_sentence() -> None:
    old: JsonObject = {"frames": 5, "digest": "d1", "dit": "f1", "models": {"vae": "v1"}}
    new: JsonObject = {"frames": 9, "digest": "d2", "dit": "f2", "models": {"vae": "v2"}}
    names = {"frames": "video_length", "digest": "", "dit": "another transformer.", "models__vae": "another VAE."}
    assert lines(old, new, **names) == ["video_length 5 -> 9", "another transformer", "another VAE"]


def test_a_name_for_a_whole_section_stands_for_all_in_it() -> None:
    assert lines({"image": {"a": 1, "b": 1}}, {"image": {"a": 2, "b": 2}}, image="another image.") == ["another image"]


def test_a_long_value_is_cut() -> None:
    [line] = lines({"prompt": "short"}, {"prompt": "x" * 500})
    assert line == f"prompt short -> {'x' * LONGEST}..."


# -- of an encoding -------------------------------------------------------------------------------------------------


def test_settings_of_an_encoding() -> None:
    old: JsonObject = {"format": 2, "models.vae": "v1", "cache.dtype": "auto"}
    assert change_of_settings(old, {**old, "cache.dtype": "float32"}, "clips") == ["cache.dtype auto -> float32"]
    assert change_of_settings(old, {**old, "models.vae": "v2"}, "clips") == ["another file for models.vae"]
    assert change_of_settings(old, {**old, "format": 3}, "clips") == ["hv15 encodes clips in a new way"]


def test_a_setting_that_is_read_with_another_is_not_told_beside_it() -> None:
    whole: JsonObject = {"cache.vae_sample_size": 0}
    tiled: JsonObject = {"cache.vae_sample_size": 128, "cache.vae_tile_overlap": 0.25}
    assert change_of_settings(whole, tiled, "clips") == ["cache.vae_sample_size 0 -> 128"]
    assert change_of_settings(tiled, whole, "clips") == ["cache.vae_sample_size 128 -> 0"]


def test_a_model_that_only_one_of_them_has() -> None:
    assert change_of_settings({"format": 2}, {"format": 2, "models.image_encoder": "s"}, "clips") == [
        "another file for models.image_encoder"
    ]
