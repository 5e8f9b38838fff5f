"""The screen Config where something is wrong: with the text, the file, or what another program does to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.containers import VerticalScroll
from textual.widgets import Static

from tests.tui.config_screen import RATE, checked, opened, saved, typed
from tests.tui.watched import CONFIG, dashboard, run_view, settle, text_of
from tui.data.config_form import FormField
from tui.dialogs.help import help_for
from tui.screens.config import ConfigScreen
from tui.widgets.field_editor import FieldEditor
from tui.widgets.settings_form import SettingsForm
from tui.widgets.yaml_editor import YamlEditor


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(CONFIG + "a: " + "[" * 3000, "nested too deep", id="depth"),
        pytest.param(
            CONFIG.replace("train:", "extra: &a\n  again: *a\ntrain:"), "extra.again: contains itself", id="circle"
        ),
        pytest.param(
            CONFIG.replace("steps: 20", "steps: " + "9" * 6000),
            "a number of 6,000 digits",
            id="digits",
        ),
    ],
)
async def test_text_that_python_gives_up_on_is_a_problem_and_can_be_saved(
    tmp_path: Path, text: str, words: str
) -> None:
    view = run_view(root=tmp_path)
    assert view.current is not None
    view.current.folder.config.parent.mkdir(parents=True)
    view.current.folder.config.write_text(CONFIG)
    app = dashboard(tmp_path, run=view, at="config")
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        await settle(pilot)
        screen.query_one(YamlEditor).load_text(text)
        await checked(pilot)
        assert words in text_of(app)
        await pilot.press("ctrl+s")
        await settle(pilot)
        await settle(pilot)
        assert saved(tmp_path) == text


@pytest.mark.slow
async def test_an_error_that_is_ours_is_said_and_the_next_step_works(tmp_path: Path) -> None:
    app = dashboard(tmp_path, at="config")
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        screen.step(lambda file: 1 / 0)
        await settle(pilot)
        assert [note.message for note in app._notifications] == ["ZeroDivisionError: division by zero"]
        screen.query_one(SettingsForm).move_to_location(("train", "network_dim"))
        await pilot.press("delete")
        await settle(pilot)
        assert screen.query_one(YamlEditor).text == CONFIG.replace("  network_dim: 8\n", "")


@pytest.mark.slow
async def test_saving_takes_what_stands_in_a_field_that_is_open(tmp_path: Path) -> None:
    app = dashboard(tmp_path, at="config")
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        screen.query_one(SettingsForm).move_to_location(RATE)
        await pilot.press("enter", "end", *["backspace"] * 4)
        await typed(pilot, "2e-4")
        await pilot.press("ctrl+s")
        await settle(pilot)
        await settle(pilot)
        assert saved(tmp_path) == CONFIG.replace("1e-3", "2e-4")
        assert not screen.query_one(FieldEditor).is_editing


@pytest.mark.slow
async def test_the_focus_goes_to_the_form_when_the_edited_entry_vanishes(tmp_path: Path) -> None:
    app = dashboard(tmp_path, at="config")
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        screen.query_one(SettingsForm).move_to_location(("sample", "prompts", 0, "prompt"))
        await pilot.press("enter", "end", "x")
        (tmp_path / "config.yaml").write_text(CONFIG[: CONFIG.index("sample:")])
        screen._check_disk()
        await settle(pilot)
        await pilot.pause()
        assert screen.query_one(SettingsForm).has_focus
        assert not screen.query_one(FieldEditor).is_editing


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        pytest.param(CONFIG.replace("\n", "\r\n", 3), id="mixed"),
        pytest.param(
            "\ufeff" + CONFIG.replace("a red circle", '"a red\u2028circle"').rstrip(),
            id="bom and u2028",
        ),
        pytest.param(CONFIG.replace("\n", "\r\n"), id="crlf"),
        pytest.param(CONFIG.replace("\n", "\r"), id="cr"),
    ],
)
async def test_bytes_stay_as_they_are_but_for_what_is_edited(tmp_path: Path, text: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_bytes(text.encode())
    app = dashboard(tmp_path, at="config")
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        screen._check_disk()
        await settle(pilot)
        assert screen.view is not None
        assert not screen.view.dirty
        screen.query_one(SettingsForm).move_to_location(("task",))
        await pilot.press("space", "ctrl+s")
        await settle(pilot)
        await settle(pilot)
        assert config.read_bytes() == text.replace("t2v", "i2v").encode()
        editor = screen.query_one(YamlEditor)
        editor.focus()
        editor.move_cursor((1, len("task: i2v")))
        await pilot.press("space", "ctrl+s")
        await settle(pilot)
        await settle(pilot)
        assert config.read_bytes() == text.replace("t2v", "i2v ").encode()


async def test_a_config_that_cannot_be_read_is_said_and_looked_at_again(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_bytes(b"\xff" + CONFIG.encode())
    app = dashboard(tmp_path, at="config")
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        screen = app.screen
        assert isinstance(screen, ConfigScreen)
        screen._check_disk()
        await settle(pilot)
        assert len(app._notifications) == 1
        assert "is not UTF-8" in str(screen.query_one("#config-notice", Static).content)
        assert "the config cannot be read" in text_of(app)
        config.write_text(CONFIG)
        screen._check_disk()
        await settle(pilot)
        assert screen.query_one(YamlEditor).text == CONFIG
        assert not screen.query_one("#config-notice").display


async def test_no_value_is_shown_of_a_text_that_never_was_yaml(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG + "train:\n  network_dim: 4\n")
    app = dashboard(tmp_path, at="config")
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        assert "not YAML yet, so no value is known: see Problems" in text_of(app)
        assert not screen.query_one(SettingsForm).rows


@pytest.mark.slow
@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_the_whole_help_of_each_setting_can_be_read(tmp_path: Path, size: tuple[int, int]) -> None:
    app = dashboard(tmp_path, at="config")
    async with app.run_test(size=size) as pilot:
        screen = await opened(pilot)
        form, box = screen.query_one(SettingsForm), screen.query_one(FieldEditor).query_one(VerticalScroll)
        form.focus()
        for number, row in enumerate(form.rows):
            form.set_reactive(SettingsForm.cursor, number)
            assert " ".join(row.help.split()) in " ".join(help_for(app.screen).plain.split())
        # how it is laid out depends on its length alone
        by_length = sorted(range(len(form.rows)), key=lambda number: len(form.rows[number].help))
        longer = 0
        for number in (*by_length[:2], *by_length[2:-6:30], *by_length[-6:]):
            form.cursor = number
            await pilot.pause()
            assert box.virtual_size.height >= screen.query_one("#field-help").size.height
            assert box.show_vertical_scrollbar == (box.virtual_size.height > box.size.height)
            longer += box.show_vertical_scrollbar
        assert longer


async def test_a_file_that_was_removed_is_written_again(tmp_path: Path) -> None:
    app = dashboard(tmp_path, at="config")
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        (tmp_path / "config.yaml").unlink()
        screen._check_disk()
        await settle(pilot)
        shown = text_of(app)
        assert "the file was removed: ctrl+s writes it again" in shown
        assert "● unsaved" in shown
        await pilot.press("ctrl+s")
        await settle(pilot)
        await settle(pilot)
        assert saved(tmp_path) == CONFIG
        assert not screen.query_one("#config-notice").display


@pytest.mark.slow
async def test_control_characters_are_signs_on_the_screen_and_themselves_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG.replace("a red circle", r'"a \x1b[31mred\x1b[0m circle ␛"'))
    app = dashboard(tmp_path, at="config")
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        form = screen.query_one(SettingsForm)
        before = saved(tmp_path)
        form.move_to_location(("sample", "prompts", 0, "prompt"))
        await pilot.press("enter")
        await pilot.pause()
        shown = text_of(app)
        assert "\x1b" not in shown
        assert "a ␛[31mred␛[0m" in shown
        await pilot.press("enter", "ctrl+s")
        await settle(pilot)
        assert saved(tmp_path) == before, "nothing was typed"
        await pilot.press("enter", "end", "backspace", "x", "ctrl+s")
        await settle(pilot)
        await settle(pilot)
        assert isinstance(form.current, FormField)
        assert form.current.text == "a \x1b[31mred\x1b[0m circle x"
