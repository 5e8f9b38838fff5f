"""Logs are followed, searched and filtered; nothing in them is taken for markup; they may be cut or go away."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from textual.app import ComposeResult
from textual.pilot import Pilot
from textual.widgets import Input

from tests.tui.recorded import Themed, dashboard, replay_at, show, until
from tui.data import patterns
from tui.messages import OpenLog
from tui.widgets.log_list import LogList, LogListReader
from tui.widgets.log_view import LogView

LINES = 5000


class Alone(Themed):
    """Nothing but a log."""

    def compose(self) -> ComposeResult:
        yield LogView()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "job.log"
    path.write_bytes(b"".join(b"line %d of the job\n" % number for number in range(1, LINES + 1)))
    return path


def seen(view: LogView) -> list[str]:
    """The text on the screen."""
    return [view.render_line(y).text.rstrip() for y in range(view.size.height)]


async def opened(pilot: Pilot[None], path: Path) -> LogView:
    view = pilot.app.query_one(LogView)
    view.open(path)
    await until(pilot, lambda: view._log_state.complete and view._log_state.lines)
    return view


def test_it_follows_its_end_until_one_scrolls_away(log: Path) -> None:
    async def run() -> None:
        async with Alone().run_test(size=(60, 20)) as pilot:
            view = await opened(pilot, log)
            await until(pilot, lambda: seen(view)[-1] == f"{LINES} line {LINES} of the job")
            with log.open("ab") as file:
                file.write(b"the next line\n")
            await until(pilot, lambda: seen(view)[-1].endswith("the next line"))

            view.focus()
            await pilot.press("g")
            await until(pilot, lambda: seen(view)[0].endswith(" 1 line 1 of the job"))
            with log.open("ab") as file:
                file.write(b"one more\n")
            await until(pilot, lambda: view._log_state.lines == LINES + 2)
            assert seen(view)[0].endswith(" 1 line 1 of the job")
            await pilot.press("f")
            await until(pilot, lambda: seen(view)[-1].endswith("one more"))

    asyncio.run(run())


def test_search_goes_both_ways_and_a_filter_keeps_line_numbers(log: Path) -> None:
    async def run() -> None:
        async with Alone().run_test(size=(60, 20)) as pilot:
            view = await opened(pilot, log)
            view.focus()
            await pilot.press("g")
            await until(pilot, lambda: view.scroll_offset.y == 0)
            view.search("line 123 ")
            await until(pilot, lambda: view._hit == 122)
            assert any("line 123 of" in line for line in seen(view))
            view.search(r"line \d*77 ")
            await until(pilot, lambda: view._hit == 176)
            await pilot.press("n")
            await until(pilot, lambda: view._hit == 276)
            await pilot.press("N", "N")
            await until(pilot, lambda: view._hit in (76, 176))
            view.search("nowhere")
            await until(pilot, lambda: "no match" in view.note)

            view.filter_by("000 of")
            await until(pilot, lambda: view._log_state.lines == 5 and view._log_state.complete)
            await until(
                pilot, lambda: [line.split()[:1] for line in seen(view)[:5]] == [[f"{n}000"] for n in range(1, 6)]
            )
            assert "cut or replaced" not in str(view.border_subtitle)
            view.filter_by("")
            await until(pilot, lambda: view._log_state.lines == LINES)
            assert view.note == ""

    asyncio.run(run())


def test_a_search_or_filter_that_takes_too_long_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "SECONDS", 0.1)
    log = tmp_path / "long.log"
    log.write_text("a" * 5000 + "b\n")

    async def run() -> None:
        async with Alone().run_test(size=(100, 20)) as pilot:
            view = await opened(pilot, log)
            view.search("(a+)+$")
            await until(pilot, lambda: "it takes too long" in view.note)
            view.filter_by("(a+)+$")
            await until(pilot, lambda: "it takes too long" in str(view.border_subtitle))
            view.filter_by("")
            await until(pilot, lambda: "1 lines" in str(view.border_subtitle))
            assert "it takes too long" not in str(view.border_subtitle)

    asyncio.run(run())


def test_what_is_written_for_terminals_is_plain_text(tmp_path: Path) -> None:
    log = tmp_path / "hard.log"
    log.write_bytes(
        b"\x1b[31mred\x1b[0m \x1b]0;title\x07text\n"
        b"[bold]no markup[/nonsense] [@click=app.exit]x[/]\n"
        b"train 10%\rtrain 20%\rtrain 99%\n"
        b"\xff\xfe not utf-8 \xe4\n" + b"x" * 100_000 + b"\n\x00zero\tand a tab\n"
    )

    async def run() -> None:
        async with Alone().run_test(size=(70, 12)) as pilot:
            view = await opened(pilot, log)
            await until(pilot, lambda: "red" in seen(view)[0])
            lines = [line[4:] for line in seen(view)]
            assert lines[:3] == ["red text", "[bold]no markup[/nonsense] [@click=app.exit]x[/]", "train 99%"]
            assert "not utf-8" in lines[3]
            assert lines[4] == "x" * 66
            assert not any("\x1b" in line or "\x00" in line for line in lines)

    asyncio.run(run())


def test_a_log_that_is_cut_or_taken_away_or_forbidden_is_told(log: Path) -> None:
    async def run() -> None:
        async with Alone().run_test(size=(60, 20)) as pilot:
            view = await opened(pilot, log)
            log.write_bytes(b"anew\n")
            await until(pilot, lambda: seen(view)[0].endswith("1 anew"))
            assert "the file was cut or replaced" in str(view.border_subtitle)
            log.unlink()
            await until(pilot, lambda: "nothing written yet" in seen(view)[0])
            log.mkdir()
            await until(pilot, lambda: view._log_state.error)
            log.rmdir()
            log.write_bytes(b"back again\n")
            await until(pilot, lambda: seen(view)[0].endswith("1 back again"))

    asyncio.run(run())


def test_the_screen_lists_what_runs_first_and_opens_what_is_asked_for(tmp_path: Path) -> None:
    async def run() -> None:
        with replay_at(tmp_path / "demo", 0.12) as replay:
            app = dashboard(replay.root, at="logs")
            async with app.run_test(size=(120, 40)) as pilot:
                screen = await show(pilot, app, "6", "logs")
                entries, view = screen.query_one(LogList), screen.query_one(LogView)
                await until(pilot, lambda: entries.rows and entries.rows[0].state == "running")
                assert view.path == entries.rows[0].path

                output = replay.run.output
                await pilot.press("1")
                app.base_screen.post_message(OpenLog(output))
                await until(pilot, lambda: view.path == output and app.screen is screen)
                await until(pilot, lambda: view._log_state.lines > 5)
                assert entries.current is not None
                assert entries.current.path == output

                await pilot.press("slash", *"rule", "enter")
                await until(pilot, lambda: view._search_text == "rule" and view.note)
                await pilot.press("ampersand", *"Snake", "enter")
                await until(pilot, lambda: view.filtered and view._log_state.complete)
                assert all("Snake" in line for line in seen(view) if line)
                await pilot.press("escape")
                assert not view.filtered
                assert not screen.query_one("#log-words", Input).has_class("-shown")

    asyncio.run(run())


def test_the_list_is_given_again_only_when_it_changed(tmp_path: Path) -> None:
    folder = tmp_path / "results/logs"
    folder.mkdir(parents=True)
    (folder / "train.log").write_text("a\n")
    reader = LogListReader(tmp_path)
    assert [entry.label for entry in reader.read() or ()] == ["train"]
    assert reader.read() is None
    (folder / "train.log").write_text("a\nb\n")
    assert [entry.size for entry in reader.read() or ()] == [4]
