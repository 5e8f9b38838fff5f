"""Nothing that a terminal would obey passes, and what is meant to be read does."""

from __future__ import annotations

import io
import json
import logging
import sys

import pytest

from hv15.progress import Progress
from hv15.terminal_text import CleanMessages, clean, cleaned, json_text, one_line, original, visible
from tests.hostile.texts import HOSTILE, OBEYED


def test_signs_stand_for_what_a_terminal_would_obey() -> None:
    assert visible("a\x1b[2Jb\r\x9b\u202e\ttab\nline") == "a\u241b[2Jb\u240d\U0010009b\U0010202e\ttab\nline"
    for text in HOSTILE.values():
        assert not OBEYED.search(visible(text).replace("\n", "").replace("\t", ""))
        assert not OBEYED.search(one_line(text).replace("\t", ""))
        assert original(visible(text)) == text
        assert not OBEYED.search(clean(text).replace("\n", ""))


@pytest.mark.parametrize("text", ["a “cat”, naïve 中文 ½", "e\u0301 👩\u200d👧 \u200cfa", "العربية עברית"])
def test_words_of_any_language_pass(text: str) -> None:
    assert visible(text) == one_line(text) == text


def test_json_can_be_shown_and_keeps_its_values() -> None:
    value = {text: [text] for text in HOSTILE.values()}
    assert not OBEYED.search(json_text(value).replace("\n", ""))
    assert json.loads(json_text(value)) == value


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_everything_that_is_printed_passes_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    text = "\n".join(HOSTILE.values())
    with cleaned():
        print(text, flush=True)
        sys.stdout.writelines([text])
        print(text, file=sys.stderr)
        logging.StreamHandler().handle(logging.makeLogRecord({"msg": text}))
    assert (sys.stdout, sys.stderr) == (out, err)
    assert not OBEYED.search(out.getvalue().replace("\n", "").replace("\t", ""))
    assert not OBEYED.search(err.getvalue().replace("\n", "").replace("\t", "").replace("\r", ""))


def test_bars_are_drawn_all_the_same() -> None:
    terminal = Terminal()
    stream = CleanMessages(terminal)
    with Progress(2, "encode", stream=stream) as progress:  # type: ignore[arg-type]
        progress.advance(2, note="\x1b]0;title\x07")
    assert terminal.getvalue().startswith("\r\x1b[2Kencode ")
    assert "\u241b]0;title\u2407" in terminal.getvalue()
    stream.write("\r 50% of another package")
    assert terminal.getvalue().endswith("\r 50% of another package")
