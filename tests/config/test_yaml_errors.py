"""A text that is no YAML: the place where it went wrong, not where a reader gave up, and the cure."""

from __future__ import annotations

from pathlib import Path

import pytest

from hv15.config import load_config
from hv15.config.yaml_file import read_yaml
from hv15.records.problems import ConfigError


@pytest.mark.parametrize("sign", ["'", '"'])
@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("task: Qt2v\ntrain:\n  seed: 3\n", 1, 7, "is never closed"),
        ("sample:\n  prompts:\n    - name: Qa\n      prompt: x\n" + "# and on\n" * 50, 3, 13, "is never closed"),
        ("a: Qx\nb: 2\nc: Qy Q\n", 1, 4, "closed in line 3"),
        ("a: Qx\nb: 2\nc: QyQ\nd: 1\n", 1, 4, "closed in line 3"),
    ],
)
def test_a_quote_that_is_not_closed_is_named_where_it_began(
    tmp_path: Path, sign: str, text: str, line: int, column: int, words: str
) -> None:
    path = tmp_path / "config.yaml"
    with pytest.raises(ConfigError) as caught:
        read_yaml(path, text.replace("Q", sign))
    [problem] = caught.value.problems
    assert (problem.place.line, problem.place.column) == (line, column)
    assert words in problem.message
    assert "close it" in problem.hint


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("prompt: bikes: in a city", "put it in quotes: prompt: 'bikes: in a city'"),
        ("prompt: it's: two", "put it in quotes: prompt: 'it''s: two'"),
        ("prompt: @home", "if it is text, put it in quotes"),
        ("prompt: `x`", "if it is text, put it in quotes"),
        ("prompt: *star*", "if it is text, put it in quotes"),
        ("prompt: - bad", "if it is text, put it in quotes"),
        ("prompt: 'it's'", "put the whole value in quotes, those in it doubled"),
        ("prompt: x\n        seed: 1", "the line is indented, but the one above it has a value already"),
    ],
)
def test_text_that_is_no_yaml_is_to_be_put_in_quotes(tmp_path: Path, line: str, hint: str) -> None:
    text = f"sample:\n  prompts:\n    - name: a\n      {line}\n"
    with pytest.raises(ConfigError) as caught:
        read_yaml(tmp_path / "config.yaml", text)
    [problem] = caught.value.problems
    assert problem.hint == hint
    assert problem.place.line == (5 if "\n" in line else 4)


def test_a_prompt_that_became_a_mapping_is_to_be_put_in_quotes(tmp_path: Path) -> None:
    """In a line of its own, `bikes: in a city` is YAML, but no prompt."""
    config = "models: {source: demo}\ndatasets: [{video_directory: a}]\n"
    text = config + "sample:\n  prompts:\n    - prompt:\n        bikes: in a city\n"
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "config.yaml", text=text)
    [problem] = [each for each in caught.value.problems if each.place.setting[-1:] == ("prompt",)]
    assert "found a mapping, expected text (put it in quotes)" in problem.message
