"""The shell: screens under their digits, help, jump mode, themes, the status line, and the watcher."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
from pathlib import Path

import pytest
from textual.binding import Binding
from textual.color import Color
from textual.widget import Widget
from textual.widgets import Input

import tui.screens
from hv15.runs.state import RunState
from tests.tui.config_screen import checked
from tests.tui.watched import (
    dashboard,
    gpu,
    job,
    jobs_view,
    machine,
    metrics_view,
    run_view,
    settle,
    text_of,
)
from tui.app import Dashboard
from tui.data.jobs import JobState
from tui.dialogs.help import HelpDialog, help_for
from tui.dialogs.jump import JumpOverlay
from tui.messages import RunSeen, SourceFailed
from tui.screens.base import DashboardScreen
from tui.themes import DARK, LIGHT, SERIES
from tui.watcher import WatchedSource, Watcher
from tui.widgets.navigation import SCREENS, SHORT, digit
from tui.widgets.states import LOOKS
from tui.widgets.yaml_editor import YamlEditor


@pytest.mark.slow
async def test_each_digit_shows_its_screen(tmp_path: Path) -> None:
    app = dashboard(tmp_path, run=run_view())
    async with app.run_test(size=(80, 24)) as pilot:
        for name in SCREENS:
            number = digit(name)
            await pilot.press(str(number))
            await settle(pilot)
            assert app.current_mode == name
            assert isinstance(app.screen, DashboardScreen)
            first, names = text_of(app).splitlines()[:2]
            assert "▶ running" in first, "the state is told on every screen"
            called = [SHORT.get(each, each).capitalize() for each in SCREENS]
            assert f"[{number} {called[SCREENS.index(name)]}]" in names
            assert all(f"{other % 10} {each}" in names for other, each in enumerate(called, start=1))


async def test_a_digit_typed_into_a_field_stays_there_and_alt_leaves(tmp_path: Path) -> None:
    app = dashboard(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("2")
        await settle(pilot)
        await pilot.press("slash", "3")
        assert app.current_mode == "config"
        assert app.screen.query_one("#search", Input).value == "3"
        await pilot.press("alt+3")
        assert app.current_mode == "charts"


async def test_a_click_on_a_name_goes_there(tmp_path: Path) -> None:
    app = dashboard(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.click("NavigationItem:last-of-type")
        assert app.current_mode == "projects"


async def test_help_tells_of_the_focused_widget_and_its_keys(tmp_path: Path) -> None:
    app = dashboard(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await pilot.press("question_mark")
        await pilot.pause()
        assert isinstance(app.screen, HelpDialog)
        shown = text_of(app)
        assert "Enter opens a job's log" in " ".join(shown.split()).replace("│ │", "")
        assert "stop: save, then end; again = kill" in shown
        await pilot.press("escape")
        assert not isinstance(app.screen, HelpDialog)


@pytest.mark.slow
async def test_help_names_things_as_people_do_not_as_the_code_does(tmp_path: Path) -> None:
    app = dashboard(tmp_path, jobs=jobs_view(job(1)))
    async with app.run_test(size=(120, 40)) as pilot:
        for number in range(1, 9):
            await pilot.press(f"alt+{number}")
            await settle(pilot)
            for widget in app.screen.focus_chain:
                app.screen.set_focus(widget)
                titles = [line.removeprefix("Keys: ") for line in help_for(app.screen).plain.split("\n")]
                classes = {type(each).__name__ for each in widget.ancestors_with_self}
                assert not classes & set(titles)
                assert not re.findall(r"\b[A-Z][a-z]+[A-Z][a-z]+", help_for(app.screen).plain), "no name of a class"


async def test_jump_mode_puts_the_focus_where_its_letter_stands(tmp_path: Path) -> None:
    app = dashboard(tmp_path, jobs=jobs_view(job(1)))
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        reachable = {widget.id for widget in app.screen.focus_chain}
        assert {"jobs", "loss", "tail"} <= reachable
        await pilot.press("ctrl+o")
        await pilot.pause()
        overlay = app.screen
        assert isinstance(overlay, JumpOverlay)
        letters = {widget.id: letter for letter, widget in overlay._targets.items()}
        await pilot.press(letters["tail"])
        await pilot.pause()
        assert app.focused is not None
        assert app.focused.id == "tail"


async def test_the_palette_knows_screens_and_the_keys_of_this_one(tmp_path: Path) -> None:
    app = dashboard(tmp_path)
    async with app.run_test() as pilot:
        await settle(pilot)
        titles = [command.title for command in app.get_system_commands(app.screen)]
        assert {"Go to Runs", "Start", "Stop", "Dry run", "Help", "Quit"} <= set(titles)


@pytest.mark.slow
async def test_a_key_before_the_palettes_list_is_there_does_no_harm(tmp_path: Path) -> None:
    app = dashboard(tmp_path)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        for wait in (0.0, 0.01, 0.02, 0.04):
            for key in ("ctrl+p", "left_square_bracket", "pagedown"):
                app.simulate_key(key)
                await asyncio.sleep(wait)
            await pilot.pause()
            await pilot.press("escape")
        assert app.is_running


async def test_quit_ends_the_dashboard_alone(tmp_path: Path) -> None:
    app = dashboard(tmp_path, run=run_view())
    async with app.run_test() as pilot:
        await settle(pilot)
        await pilot.press("q")
    assert app.return_code == 0
    assert not (tmp_path / ".hv15").exists(), "no run was asked to stop"


async def test_quit_asks_about_what_is_not_saved(tmp_path: Path) -> None:
    app = dashboard(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("2")
        await settle(pilot)
        app.screen.query_one(YamlEditor).insert("# more\n")
        await checked(pilot)
        assert app.unsaved == ["config.yaml"]
        app.screen.set_focus(None)
        await pilot.press("q")
        await pilot.pause()
        assert "Not saved: config.yaml." in text_of(app)
        await pilot.press("s")
        await pilot.pause()
        assert app.is_running
        await pilot.press("alt+1", "s")
        await settle(pilot)
        assert "not saved, so not used: config.yaml" in text_of(app)
        await pilot.press("escape", "q", "q")
    assert app.return_code == 0


def own_bindings() -> list[tuple[str, Binding]]:
    classes: set[type] = {Dashboard}
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("tui."):
            classes |= {
                each for each in vars(module).values() if isinstance(each, type) and each.__module__ == module.__name__
            }
    return [
        (each.__name__, binding)
        for each in classes
        for binding in each.__dict__.get("BINDINGS", ())
        if isinstance(binding, Binding)
    ]


def test_every_key_has_a_name_of_its_own_and_says_what_it_does() -> None:
    bindings = own_bindings()
    assert len(bindings) > 60
    silent = [(owner, binding.key) for owner, binding in bindings if not binding.id or not binding.tooltip]
    assert not silent
    names = [binding.id for _, binding in bindings]
    assert len(names) == len(set(names)), "a keymap addresses each key by its id"


def contrast(one: str, other: str) -> float:
    """WCAG 2: the ratio of the relative luminances."""

    def luminance(colour: Color) -> float:
        parts = [value / 255 for value in colour.rgb]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(Color.parse(one)), luminance(Color.parse(other))), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [DARK, LIGHT], ids=lambda theme: theme.name)
def test_text_can_be_read_in_both_themes(theme: object) -> None:
    assert theme in (DARK, LIGHT)
    theme = DARK if theme is DARK else LIGHT
    names = ["primary", "success", "warning", "error", "accent", "foreground"]
    text = {name: getattr(theme, name) for name in names} | {"faint": theme.variables["faint"]}
    for name, colour in text.items():
        assert contrast(colour, theme.background or "") >= 4.5, name
    for name in SERIES:
        assert contrast(theme.variables[name], theme.background or "") >= 3, name
    assert contrast(theme.variables["block-cursor-foreground"], theme.variables["block-cursor-background"]) >= 4.5


async def test_the_theme_changes_by_a_key(tmp_path: Path) -> None:
    app = dashboard(tmp_path)
    async with app.run_test() as pilot:
        assert app.theme == DARK.name
        await pilot.press("f2")
        assert app.theme == LIGHT.name


def test_no_two_states_that_are_shown_together_share_a_sign() -> None:
    runs = [each.value for each in RunState] + ["idle"]
    jobs = [each.value for each in JobState]
    for group in (runs, jobs):
        assert all(state in LOOKS for state in group)
        signs = [LOOKS[state][0] for state in group]
        assert len(signs) == len(set(signs))


async def test_nothing_is_told_by_colour_alone_under_no_color(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    jobs = [job(1, JobState.FAILED), job(2, JobState.DONE), job(3)]
    app = dashboard(tmp_path, run=run_view(RunState.FAILED), jobs=jobs_view(*jobs))
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert app.no_color
        shown = text_of(app)
        for words in ("✗ failed", "✗ encode clips 1", "✓ encode clips 2", "· encode clips 3"):
            assert words in shown


@pytest.mark.slow
async def test_the_status_line_leaves_out_what_does_not_fit_but_never_the_state(tmp_path: Path) -> None:
    views = {"run": run_view(), "jobs": jobs_view(job(1)), "metrics": metrics_view(), "machine": machine(gpu())}
    folder = tmp_path / "my-project"
    folder.mkdir()
    app = dashboard(folder, **views)
    async with app.run_test(size=(120, 30)) as pilot:
        await settle(pilot)
        for width in (120, 40, 80, 200):
            await pilot.resize_terminal(width, 30)
            await pilot.pause()
            line = text_of(app).splitlines()[0]
            assert len(line) == width
            assert "▶ running" in line
            wanted = ["step 812/2000", "ETA 2:05"] if width >= 80 else []
            wanted += ["GPU0 71/80 GiB 98 %", "disk 300 GiB free"] if width >= 120 else []
            wanted += ["node7"] if width >= 200 else []
            for fact in wanted:
                assert fact in line


async def test_without_a_gpu_the_line_says_cpu_and_memory(tmp_path: Path) -> None:
    app = dashboard(tmp_path, run=run_view(), machine=machine())
    async with app.run_test(size=(120, 30)) as pilot:
        await settle(pilot)
        assert "CPU 45 % RSS 5.0 GiB" in text_of(app).splitlines()[0]


async def test_a_source_that_breaks_is_told_once_and_the_others_go_on(tmp_path: Path) -> None:
    app = dashboard(tmp_path)
    calls = 0

    def breaks() -> None:
        nonlocal calls
        calls += 1
        raise ValueError("out of [b]order")

    app.watcher = Watcher(app, [WatchedSource("bad", breaks, RunSeen, always=True), *app.files.sources()])
    seen: list[str] = []
    async with app.run_test(message_hook=lambda message: seen.append(type(message).__name__)) as pilot:
        for _ in range(3):
            await settle(pilot, run=run_view())
        assert calls >= 3
        assert seen.count(SourceFailed.__name__) == 1
        assert "▶ running" in text_of(app)


async def test_only_what_the_screen_asks_for_is_read_and_never_twice_at_a_time(tmp_path: Path) -> None:
    app = dashboard(tmp_path)
    gate, reads, at_once, most = threading.Event(), [], 0, 0

    def slow() -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        gate.wait(10)
        at_once -= 1

    sources = [
        WatchedSource("slow", slow, RunSeen, always=True),
        WatchedSource("other", lambda: reads.append("other"), RunSeen),
    ]
    app.watcher = Watcher(app, sources)
    async with app.run_test() as pilot:
        for _ in range(5):
            app.watcher.refresh()
            await asyncio.sleep(0.01)
        gate.set()
        await pilot.pause()
        assert most == 1
        assert not reads, "no screen asks for it"


async def test_a_screen_shown_later_is_told_what_was_seen_before(tmp_path: Path) -> None:
    app = dashboard(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot, run=run_view(RunState.FAILED), machine=machine(gpu()))
        await pilot.press("8")
        await pilot.pause()
        await pilot.pause()
        assert "✗ failed" in text_of(app).splitlines()[0]


@pytest.mark.slow
async def test_the_ui_thread_opens_no_file(tmp_path: Path) -> None:
    """Everything that is read is read in threads, so that a hanging disk does not freeze the keys."""
    opened: list[str] = []
    watching = False
    main = threading.get_ident()

    def audit(event: str, details: tuple[object, ...]) -> None:
        if watching and event in ("open", "os.listdir", "os.scandir") and threading.get_ident() == main:
            if str(details[0]).startswith("/proc/self/task"):  # read by `tests.tui.idle`
                return
            opened.append(f"{event} {details[0]}")

    sys.addaudithook(audit)
    app = dashboard(
        tmp_path, run=run_view(root=tmp_path), jobs=jobs_view(job(1, JobState.RUNNING)), metrics=metrics_view()
    )
    own = ("run", "config", "charts", "runs")
    async with app.run_test(size=(120, 40)) as pilot:
        for name in own:  # style sheets are read when a screen is made
            await app.switch_mode(name)
            await settle(pilot)
        watching = True
        for name in own:
            await app.switch_mode(name)
            await settle(pilot, run=run_view(root=tmp_path), metrics=metrics_view(2), machine=machine(gpu()))
            await pilot.press("down", "up", "tab")
        watching = False
    assert not opened


def test_each_screen_and_each_widget_that_takes_the_focus_has_help() -> None:
    assert tui.screens.__doc__
    silent = [
        f"{each.__module__}.{each.__name__}"
        for module in list(sys.modules.values())
        if getattr(module, "__name__", "").startswith(("tui.widgets.", "tui.screens."))
        for each in vars(module).values()
        if isinstance(each, type)
        and each.__module__ == module.__name__
        and issubclass(each, Widget)
        and (each.can_focus or issubclass(each, DashboardScreen))
        and each.__name__ not in ("DashboardScreen", "ConfigSaving", "Rows")
        and not each.HELP
    ]
    assert not silent
