"""The texts of a caption: its variants, versions with other tags, and the trigger word."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from hv15.config.datasets import DatasetSettings
from hv15.data.caption_texts import CaptionTexts
from hv15.data.scan import survey
from hv15.data.survey import Survey
from tests.data.test_scan import put

TAGS = "one, two,three , four,five"


def texts(*captions: str, **settings: Any) -> tuple[str, ...]:
    return CaptionTexts(DatasetSettings.model_validate({"video_directory": ".", **settings})).of(captions)


def look(root: Path, content: str, **settings: Any) -> Survey:
    """A folder with one clip and this caption file."""
    put(root, "a.mp4", caption=None)
    (root / "a.txt").write_text(content)
    return survey(DatasetSettings.model_validate({"video_directory": ".", **settings}), root)


def look_at_row(root: Path, caption: Any, **settings: Any) -> Survey:
    put(root, "a.mp4", caption=None)
    (root / "v.jsonl").write_text(json.dumps({"video_path": "a.mp4", "caption": caption}))
    return survey(DatasetSettings.model_validate({"video_jsonl_file": "v.jsonl", **settings}), root)


# -- variants -------------------------------------------------------------------------------------------------------


def test_several_lines_are_one_caption_unless_variants_are_asked_for(tmp_path: Path) -> None:
    content = " a cat\r\n\r\n  runs \n"
    (source,) = look(tmp_path, content).sources
    assert source.texts == ("a cat\n\n  runs",)
    (source,) = look(tmp_path, content, caption_variants=True, caption_prefix="sks ").sources
    assert source.texts == ("sks a cat", "sks runs")
    assert source.written == "a cat\n\n  runs", "the dashboard edits the file as it is"


def test_a_caption_of_one_line_has_no_variants(tmp_path: Path) -> None:
    assert look(tmp_path, "a cat", caption_variants=True).sources[0].texts == ("a cat",)
    assert look(tmp_path, "\n \n", caption_variants=True).sources[0].texts == ("",)


def test_the_default_caption_may_have_variants(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4", caption=None)
    dataset = DatasetSettings(video_directory=".", default_caption="a clip\na film", caption_variants=True)
    assert survey(dataset, tmp_path).sources[0].texts == ("a clip", "a film")


def test_a_row_may_have_a_list(tmp_path: Path) -> None:
    (source,) = look_at_row(tmp_path, [" short ", "long\ntext"], caption_variants=True).sources
    assert (source.texts, source.is_list) == (("short", "long\ntext"), True)
    (source,) = look_at_row(tmp_path, "long\ntext", caption_variants=True).sources
    assert (source.texts, source.is_list) == (("long\ntext",), False), "a row can have a list, so lines are text"


@pytest.mark.parametrize(
    ("caption", "settings", "message"),
    [
        (["one", "two"], {}, "is a list for a.mp4: set caption_variants: true"),
        ([], {"caption_variants": True}, "is an empty list for a.mp4"),
        (["one", 2], {"caption_variants": True}, 'expected "caption" with a text for a.mp4'),
        (["one", "\0"], {"caption_variants": True}, "NUL"),
        (["x"] * 1001, {"caption_variants": True}, "1001 captions for one clip, at most 1000"),
    ],
)
def test_a_list_that_cannot_be_used(tmp_path: Path, caption: Any, settings: Any, message: str) -> None:
    found = look_at_row(tmp_path, caption, **settings)
    assert not found.sources
    assert message in str(found.problems[0])


# -- tags -----------------------------------------------------------------------------------------------------------


def test_the_first_version_is_the_caption_as_it_is_written() -> None:
    first, *others = texts(TAGS, shuffle_tags=True, caption_prefix="sks, ")
    assert first == f"sks, {TAGS}"
    assert len(others) == 7
    assert all(sorted(text.split(", ")) == sorted(["sks", "one", "two", "three", "four", "five"]) for text in others)
    assert all(text.startswith("sks, ") for text in others)


def test_a_version_is_the_order_of_its_hashes() -> None:
    """So the texts of a dataset never change, whatever the versions of Python and torch."""
    found = texts("a,b,c,d", shuffle_tags=True, keep_tags=1, caption_versions=5)
    for number, text in enumerate(found[1:], 1):
        drawn = hashlib.shake_256(f"tags/{number}/a,b,c,d".encode()).digest(3 * 16)
        words = [drawn[start : start + 8] for start in range(0, 3 * 8, 8)]
        assert text == ", ".join(["a", *(tag for _, tag in sorted(zip(words, "bcd", strict=True)))])


def test_more_versions_leave_those_before_as_they_are() -> None:
    settings = {"shuffle_tags": True, "tag_dropout": 0.3}
    assert texts(TAGS, caption_versions=12, **settings)[:5] == texts(TAGS, caption_versions=5, **settings)


def test_every_order_is_drawn_equally_often() -> None:
    """Chi-square of the 6 orders of 3 tags in 1980 versions: 20.5 is exceeded once in 1000."""
    settings = {"shuffle_tags": True, "caption_versions": 100}
    counts = Counter(text for n in range(20) for text in texts(f"x{n}, b, c, d", keep_tags=1, **settings)[1:])
    orders = Counter()  # type: ignore[var-annotated]
    for text, count in counts.items():
        orders[text.partition(", ")[2]] += count
    assert len(orders) == 6
    assert sum((count - 330) ** 2 / 330 for count in orders.values()) < 20.5


def test_tags_are_left_out_with_their_probability_and_the_first_are_kept() -> None:
    found = [
        text
        for n in range(20)
        for text in texts(f"x{n}, y, b, c", tag_dropout=0.25, keep_tags=2, caption_versions=100)[1:]
    ]
    assert all(text.startswith(f"x{n // 99}, y") for n, text in enumerate(found)), "kept, and in its place"
    assert {text.partition(", ")[2] for text in found} == {"y, b, c", "y, b", "y, c", "y"}, "the order stays"
    for tag in "bc":
        assert abs(sum(tag in text for text in found) / len(found) - 0.75) < 0.04


def test_tags_may_be_separated_by_something_else() -> None:
    found = set(texts("A cat. It runs. It jumps", shuffle_tags=True, tag_separator=".", caption_versions=40)[1:])
    assert "It jumps. A cat. It runs" in found
    assert len(found) == 6


def test_each_variant_has_versions() -> None:
    found = texts("a, b", "c, d", shuffle_tags=True, caption_versions=3)
    assert len(found) == 6
    assert (found[0], found[3]) == ("a, b", "c, d")
    assert all(set(text) == set(part) for text, part in zip(found, ["a, b"] * 3 + ["c, d"] * 3, strict=True))


def test_a_caption_without_tags_to_draw_has_one_text() -> None:
    assert texts("a cat", shuffle_tags=True) == ("a cat",)
    assert texts("a,b", shuffle_tags=True, keep_tags=2) == ("a,b",)
    assert texts("", tag_dropout=0.5) == ("",)
    assert texts("one", "one, two", shuffle_tags=True, caption_versions=2)[:2] == ("one", "one"), "drawn as often"


# -- the trigger word -----------------------------------------------------------------------------------------------


def test_the_trigger_word_takes_its_place() -> None:
    written = {"caption_prefix": "{trigger}: ", "caption_suffix": " by {trigger}"}
    assert texts("{trigger} runs", **written) == ("{trigger}: {trigger} runs by {trigger}",)
    assert texts("{trigger} runs", trigger="zorp", **written) == ("zorp: zorp runs by zorp",)


def test_the_trigger_word_is_one_tag_and_draws_nothing_anew() -> None:
    settings = {"shuffle_tags": True, "tag_dropout": 0.3}
    before = texts("{trigger}, red, blue", **settings)
    after = texts("{trigger}, red, blue", trigger="zorp, the cat", **settings)
    assert after == tuple(text.replace("{trigger}", "zorp, the cat") for text in before)


# -- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep_tags": 1}, "keep_tags.*has no effect without shuffle_tags or tag_dropout"),
        ({"caption_versions": 4}, "caption_versions.*has no effect without shuffle_tags or tag_dropout"),
        ({"tag_separator": ";"}, "tag_separator.*has no effect without shuffle_tags or tag_dropout"),
        ({"shuffle_tags": True, "tag_separator": " "}, "expected what stands between tags"),
        ({"shuffle_tags": True, "caption_versions": 1}, "greater than or equal to 2"),
        ({"tag_dropout": 1.0}, "less than 1"),
        ({"trigger": ""}, "at least 1 character"),
    ],
)
def test_settings_that_do_not_fit_together(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match="(?s)" + message):
        DatasetSettings.model_validate({"video_directory": ".", **settings})


def test_a_plain_dataset_reads_the_caption_itself() -> None:
    """No copies: there may be 100,000 captions."""
    caption = "a cat that runs"
    assert texts(caption)[0] is caption
