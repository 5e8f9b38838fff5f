"""What was parsed once is not parsed again: neither for another screen nor for another dashboard of the same look."""

from __future__ import annotations

import pytest
from textual.css import stylesheet as textual_stylesheet

from tui.stylesheet import CachedStylesheet

CSS = "Label { color: $primary; }"


def parsed(sheet: CachedStylesheet) -> str:
    """The colour that the rule gives."""
    sheet.parse()
    [rule] = sheet.rules
    return rule.styles.color.hex


def test_each_source_is_parsed_once_for_each_look(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    parse = textual_stylesheet.parse

    def counted(*arguments, **named):  # type: ignore[no-untyped-def]
        calls.append(arguments)
        return parse(*arguments, **named)

    monkeypatch.setattr(textual_stylesheet, "parse", counted)
    red, blue = {"primary": "#ff0000", "of": "this test"}, {"primary": "#0000ff", "of": "this test"}
    sheets = [CachedStylesheet(variables=dict(red)) for _ in range(2)]
    for sheet in sheets:
        sheet.add_source(CSS, read_from=("test", "one"))
        assert parsed(sheet) == "#FF0000"
    assert len(calls) == 1
    sheets[0].set_variables(blue)
    assert parsed(sheets[0]) == "#0000FF"
    assert parsed(sheets[1]) == "#FF0000", "the other one keeps its look"
    sheets[0].set_variables(red)
    assert parsed(sheets[0]) == "#FF0000"
    assert len(calls) == 2
