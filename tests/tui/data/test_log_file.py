from __future__ import annotations

import os
import random
import threading
from pathlib import Path

import pytest

from hv15.patterns import PatternError
from hv15.terminal_text import LONGEST, clean
from tui.data import log_file, patterns
from tui.data.log_file import LogFile, LogFilter, log_files, tail
from tui.data.patterns import search_pattern


def opened(path: Path) -> LogFile:
    log = LogFile(path)
    while log.refresh() or not log.complete:
        pass
    return log


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.log"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small chunks, so that a small file has all that a large one has."""
    sizes = {"CHUNK": 300, "SPACING": 256, "LINES": 7, "EDGE": 100, "TAIL_STEP": 512, "TAIL": 2048}
    for name, value in sizes.items():
        monkeypatch.setattr(log_file, name, value)


def test_any_block_is_what_the_file_says(path: Path, small: None) -> None:
    """Compared with Python's own splitting, for lines of all lengths."""
    chooser = random.Random(1)
    lines = ["x" * chooser.choice([0, 1, 5, 40, 200, 255, 256]) + str(n) for n in range(500)]
    path.write_text("\n".join(lines))
    log = opened(path)
    assert log.lines == 500
    for first in range(0, 500, 13):
        for count in (1, 7, 50):
            assert log.block(first, count) == lines[first : first + count]
    assert log.block(499, 10) == lines[499:]
    assert log.block(500, 10) == []


def test_it_grows_line_by_line(path: Path, small: None) -> None:
    log = LogFile(path)
    assert not log.refresh()
    with path.open("a") as file:
        for number in range(300):
            file.write(f"line {number}")
            file.flush()
            assert log.refresh() == True or number  # noqa: E712
            assert log.lines == number + 1
            file.write("\n")
            file.flush()
            log.refresh()
    assert log.lines == 300
    assert log.block(298, 5) == ["line 298", "line 299"]
    assert log.generation == 0


def test_a_file_that_is_cut_replaced_or_removed_begins_anew(path: Path) -> None:
    path.write_text("one\ntwo\n")
    log = opened(path)
    path.write_text("three\n")
    log.refresh()
    assert (log.generation, log.lines, log.block(0, 9)) == (1, 1, ["three"])
    path.write_text("other text that is longer\n")
    log.refresh()
    assert (log.generation, log.block(0, 9)) == (2, ["other text that is longer"])
    new = path.with_name("new")
    new.write_text("rotated\n" * 3)
    new.replace(path)
    log.refresh()
    assert (log.generation, log.lines) == (3, 3)
    path.unlink()
    log.refresh()
    assert (log.generation, log.lines, log.error, log.block(0, 3)) == (4, 0, "", [])


def test_a_cut_between_two_looks_is_no_error(path: Path) -> None:
    path.write_text("a line\n" * 1000)
    log = opened(path)
    path.write_text("")
    assert log.block(0, 50) == [] or set(log.block(0, 50)) == {""}
    assert list(log.matches(search_pattern("line"))) == []


def test_a_line_of_many_megabytes_is_read_at_its_ends(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"first\n" + b"head" + b"x" * (5 << 20) + b"end\nafter\n")
        file.write(b"".join(b"\rstep %d of 400000" % n for n in range(400_000)) + b"\nlast")
    log = opened(path)
    assert log.lines == 5
    first, long, after, progress, last = log.block(0, 10)
    assert (first, after, progress, last) == ("first", "after", "step 399999 of 400000", "last")
    assert long.startswith("headxxx")
    assert LONGEST <= len(long) < LONGEST + 10
    assert log.block(2, 1) == ["after"]
    assert log.search("after", 0) == 2


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (b"\x1b[1;31mred\x1b[0m plain", "red plain"),
        (b"\x1b]8;;http://x\x07link\x1b]8;;\x07", "link"),
        (b"\x1b]0;title\x1b\\text", "text"),
        (b"\x1b(Bx\x1b7y\x1bMz\x1b", "xyz"),
        (b" 10%\r 20%\r 30%", " 30%"),
        (b" 30%\r", " 30%"),
        (b"a\tb", "a       b"),
        (b"abc\b\bd", "ad"),
        (b"\x00\x07bell\x9b\x7f", "bell\ufffd"),
        (b"caf\xe9 \xff", "caf\ufffd \ufffd"),
        (b"markup [bold]stays[/]", "markup [bold]stays[/]"),
        ("\u202eturned".encode(), "turned"),
        (b"y" * 10_000, "y" * LONGEST + " …"),
        (b"", ""),
    ],
)
def test_what_is_shown_of_a_line(written: bytes, shown: str) -> None:
    assert clean(written) == shown


def test_searching_agrees_with_a_search_line_by_line(path: Path, small: None) -> None:
    chooser = random.Random(2)
    words = ["loss", "Error", "ERROR", "step 5", "\x1b[31mred\x1b[0m", "é", "x" * 90, ""]
    lines = [" ".join(chooser.choices(words, k=3)) for _ in range(400)]
    path.write_text("\n".join(lines) + "\n")
    log = opened(path)
    for words_ in ("error", "ERROR", "^loss", "red$", "é l", r"step \d", "[^q]+loss$", "nothing", r"s\s+e", "red E"):
        pattern = search_pattern(words_)
        expected = [number for number, line in enumerate(lines) if pattern.text.search(clean(line))]
        assert list(log.matches(pattern)) == expected, words_
        for start in (0, 1, 57, 399):
            forward = next((number for number in expected if number >= start), None)
            back = next((number for number in reversed(expected) if number <= start), None)
            assert log.search(words_, start) == forward
            assert log.search(words_, start, backwards=True) == back


def test_a_search_can_be_cancelled(path: Path) -> None:
    path.write_text("line\n" * 1000)
    log = opened(path)
    cancel = threading.Event()
    cancel.set()
    assert log.search("line", 0, cancel=cancel) is None
    assert log.search("line", 999, backwards=True, cancel=cancel) is None


def test_a_filter_follows_the_log(path: Path, small: None) -> None:
    path.write_text("".join(f"line {n}\n" for n in range(100)))
    log = opened(path)
    chosen = LogFilter(log, "7$")
    while not chosen.complete:
        chosen.advance()
    assert chosen.lines == 10
    assert chosen.block(8, 5) == [(87, "line 87"), (97, "line 97")]
    with path.open("a") as file:
        file.write("more 10")
        file.flush()
        log.refresh()
        chosen.advance()
        assert chosen.lines == 10
        file.write("7\nend\n")
    log.refresh()
    chosen.advance()
    assert chosen.block(10, 5) == [(100, "more 107")]
    path.write_text("7\n")
    log.refresh()
    assert chosen.advance()
    assert chosen.block(0, 5) == [(0, "7")]


@pytest.mark.parametrize(
    ("words", "text", "found"),
    [
        ("Loss", "loss", False),
        ("loss", "LOSS", True),
        (r"\Sx", "AX", True),
        ("a[", "xa[", True),
        ("(", "f(x)", True),
        ("(a+)+$", "(a+)+$", False),
        ("(a+)+$", "aaaa", True),
        (r"(\w+ )+done", "all is done", True),
        ("a{2}", "aa", True),
        ("[é-ü]", "ê", True),
    ],
)
def test_patterns(words: str, text: str, found: bool) -> None:
    pattern = search_pattern(words)
    assert bool(pattern.text.search(text)) == found
    assert bool(pattern.note) == (words in ("a[", "("))


@pytest.mark.parametrize("words", ["(a+)+$", "(a|aa)+$"])
def test_a_search_that_would_take_for_ever_ends_and_says_so(
    path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.setattr(patterns, "SECONDS", 0.1)
    path.write_text("a" * 5000 + "b\n")
    with pytest.raises(PatternError, match="it takes too long"):
        opened(path).search(words, 0)
    chosen = LogFilter(opened(path), words)
    assert chosen.advance()
    assert chosen.complete
    assert "it takes too long" in chosen.error
    assert list(search_pattern(words).spans("a" * 5000 + "b")) == []


def test_tail_needs_no_index(path: Path) -> None:
    path.write_bytes(b"\xff\n" + b"".join(b"line %d\n" % n for n in range(100_000)))
    assert tail(path, 3) == ["line 99997", "line 99998", "line 99999"]
    assert LogFile(path).tail(1) == ["line 99999"]
    assert tail(path.with_name("none")) == []
    path.write_bytes(b"")
    assert tail(path) == []


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    log = LogFile(tmp_path)
    log.refresh()
    assert "cannot be read" in log.error
    assert log.block(0, 5) == []
    os.mkfifo(tmp_path / "pipe")
    LogFile(tmp_path / "pipe").refresh()


def test_all_logs_are_listed(tmp_path: Path) -> None:
    for name in (
        "results/logs/train.log",
        "results/rank-8/logs/train.log",
        ".hv15/runs/20260101-000000-aaaa/output.log",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [label for label, _ in log_files(tmp_path)] == ["run 20260101-000000-aaaa", "train", "train"]
