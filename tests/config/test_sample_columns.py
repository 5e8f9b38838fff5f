"""Which samples are made of each prompt and seed: their names' endings, and what stands over them on the sheet."""

from __future__ import annotations

from typing import Any

import pytest

from hv15.config.sample import SampleSettings
from hv15.config.sample_columns import NO_LORA, column_name, columns_of, row_name

STYLE = {"path": "a folder/my style v1.5.safetensors", "multiplier": 0.8}


def columns(*, trains: bool, **settings: Any) -> list[tuple[str, str, float]]:
    sample = SampleSettings.model_validate({"prompts": [{"prompt": "a cat"}], **settings})
    return [(each.suffix, each.label, each.strength) for each in columns_of(sample, trains=trains)]


def test_a_project_that_compares_nothing_has_one_column() -> None:
    assert [suffix for suffix, _, _ in columns(trains=True)] == [""]
    assert [suffix for suffix, _, _ in columns(trains=False, loras=[STYLE])] == [""]


def test_strengths_of_the_trained_lora_or_of_all_others() -> None:
    wanted = [(".x0", NO_LORA, 0.0), (".x0.5", "strength 0.5", 0.5), (".x1", "strength 1", 1.0)]
    assert columns(trains=True, strengths=[0, 0.5, 1]) == wanted
    assert columns(trains=False, strengths=[0, 0.5, 1], loras=[STYLE]) == wanted
    assert columns(trains=False, strengths=[0, 0.5, 1], prompts=[{"prompt": "a", "loras": [STYLE]}]) == wanted


def test_compared_loras_stand_beside_what_is_there() -> None:
    style = (".with-my-style-v1-5", "my style v1.5", 1.0)
    assert columns(trains=True, compare=[STYLE]) == [("", "this LoRA", 1.0), style]
    assert columns(trains=False, compare=[STYLE], loras=[STYLE]) == [("", "without", 1.0), style]
    assert columns(trains=False, compare=[STYLE]) == [("", NO_LORA, 1.0), style]


def test_each_lora_at_each_strength_and_none_once() -> None:
    style = (".with-my-style-v1-5.x0.5", "my style v1.5 x 0.5", 0.5)
    assert columns(trains=True, compare=[STYLE], strengths=[0, 0.5]) == [
        (".x0", NO_LORA, 0.0),
        (".x0.5", "this LoRA x 0.5", 0.5),
        style,
    ]
    assert columns(trains=False, compare=[STYLE], strengths=[0, 0.5]) == [("", NO_LORA, 1.0), style]


@pytest.mark.parametrize(
    ("name", "row", "column"),
    [
        ("cat", "cat", ""),
        ("cat.seed7", "cat.seed7", ""),
        ("cat.seed7.x-0.5", "cat.seed7", "x-0.5"),
        ("cat.with-style", "cat", "with-style"),
        ("cat.seed7.with-style.x1e-05", "cat.seed7", "with-style.x1e-05"),
    ],
)
def test_a_name_tells_its_row_and_column(name: str, row: str, column: str) -> None:
    assert (row_name(name), column_name(name)) == (row, column)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"strengths": [1, 0.5, 1]}, "found 1 twice"),
        ({"compare": [{"path": "a/x.safetensors"}, {"path": "b/X.safetensors"}]}, r"also the name of compare\[0\]"),
        ({"strengths": [1], "prompts": [{"name": "Grid", "prompt": "a"}]}, "'grid' is the name of the sheet"),
        ({"strengths": [float("inf")]}, "finite"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        SampleSettings.model_validate(settings)
