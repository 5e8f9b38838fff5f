"""The screen Config on a real file: what the form does to its bytes, and what is said about them."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.containers import VerticalScroll
from textual.pilot import Pilot
from textual.widgets import Static

from tests.tui.watched import CONFIG, GIB, dashboard, planned, run_view, settle, text_of
from tui.app import Dashboard
from tui.data.config_form import FormField
from tui.data.estimate import Estimate, EstimateLine
from tui.data.rerun import Rerun
from tui.dialogs.confirm import Confirm
from tui.dialogs.help import help_for
from tui.screens.config import ConfigScreen
from tui.widgets import findings
from tui.widgets.field_editor import FieldEditor
from tui.widgets.findings import Findings
from tui.widgets.settings_form import SettingsForm
from tui.widgets.yaml_editor import YamlEditor

RATE = ("train", "learning_rate")


async def opened(pilot: Pilot[None]) -> ConfigScreen:
    await pilot.press("2")
    await settle(pilot)
    assert isinstance(pilot.app, Dashboard)
    screen = pilot.app.screen
    assert isinstance(screen, ConfigScreen)
    assert screen.view is not None
    return screen


def saved(folder: Path) -> str:
    return (folder / "config.yaml").read_text()


async def typed(pilot: Pilot[None], text: str) -> None:
    for character in text:
        await pilot.press({".": "full_stop", "-": "minus"}.get(character, character))


async def test_an_edit_in_the_form_changes_that_value_in_the_file_and_nothing_else(tmp_path: Path) -> None:
    app = dashboard(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        form = screen.query_one(SettingsForm)
        form.move_to_location(RATE)
        await pilot.press("enter", "end", *["backspace"] * 4)
        await typed(pilot, "2e-4")
        await pilot.press("enter")
        await settle(pilot)
        assert saved(tmp_path) == CONFIG, "not saved yet"
        assert "● unsaved" in text_of(app)
        await pilot.press("ctrl+s")
        await settle(pilot)
        await settle(pilot)
        assert saved(tmp_path) == CONFIG.replace("learning_rate: 1e-3   #", "learning_rate: 2e-4   #")
        assert "✓ saved" in text_of(app)


async def test_delete_takes_a_setting_out_and_undo_and_redo_go_back_and_forth(tmp_path: Path) -> None:
    app = dashboard(tmp_path)
    without = CONFIG.replace("  network_dim: 8\n", "")
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        form, editor = screen.query_one(SettingsForm), screen.query_one(YamlEditor)
        form.move_to_location(("train", "network_dim"))
        await pilot.press("delete")
        await settle(pilot)
        assert editor.text == without
        await pilot.press("ctrl+z")
        await settle(pilot)
        assert editor.text == CONFIG
        await pilot.press("ctrl+y")
        await settle(pilot)
        assert editor.text == without
        form.move_to_location(("task",))
        await pilot.press("space")
        await settle(pilot)
        assert "task: i2v" in editor.text
        assert screen.view is not None
        assert screen.view.problems, "i2v needs an image for its prompt"


async def test_what_is_typed_into_the_text_is_checked_and_shows_in_the_form(tmp_path: Path) -> None:
    app = dashboard(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        editor = screen.query_one(YamlEditor)
        editor.focus()
        line = CONFIG.splitlines().index("  network_dim: 8")
        editor.move_cursor((line, len("  network_di")))
        await pilot.press("n")
        await pilot.pause(0.6)
        await settle(pilot)
        shown = text_of(app)
        assert f"{line + 1}:3" in shown
        assert "train.network_dinm: unknown key; did you mean 'network_dim'?" in shown
        await pilot.press("ctrl+t")
        await pilot.press("backspace", *["delete"] * 0)
        await pilot.pause(0.6)
        await settle(pilot)
        assert screen.view is not None
        assert not screen.view.problems
        editor.move_cursor((line, len("  network_dim: 8")))
        await pilot.press("0")
        await pilot.pause(0.6)
        await settle(pilot)
        fields = {field.path: field for section in screen.view.sections for field in section.fields}
        assert fields["train.network_dim"].text == "80"


async def test_enter_on_a_problem_goes_to_its_place(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG.replace("network_dim: 8", "network_dim: eight"))
    app = dashboard(tmp_path)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot)
        screen.query_one("#problems").focus()
        await pilot.press("enter")
        await pilot.pause()
        editor = screen.query_one(YamlEditor)
        assert editor.has_focus
        line, column = editor.cursor_location
        assert CONFIG.splitlines()[line][:column] == "  network_dim: "


async def test_search_and_only_changed(tmp_path: Path) -> None:
    app = dashboard(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        form = screen.query_one(SettingsForm)
        everything = len(form.rows)
        await pilot.press("slash", *"warm")
        await settle(pilot)
        names = [getattr(row, "name", "") for row in form.rows]
        assert "lr_warmup_steps" in names
        assert "network_dim" not in names
        await pilot.press("escape")
        await pilot.pause()
        assert len(form.rows) == everything
        assert form.has_focus
        await pilot.press("c")
        await pilot.pause()
        names = [getattr(row, "name", "") for row in form.rows]
        assert "learning_rate" in names
        assert "optimizer_type" not in names


async def test_entries_of_lists_come_and_go(tmp_path: Path) -> None:
    app = dashboard(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        form = screen.query_one(SettingsForm)
        form.move_to_location(("sample", "prompts", 0))
        await pilot.press("plus")
        await settle(pilot)
        titles = [section.title for section in form.sections]
        assert "sample.prompts[1]" in titles
        form.move_to_location(("sample", "prompts", 1))
        await pilot.press("minus")
        await pilot.pause()
        assert isinstance(app.screen, Confirm)
        await pilot.press("r")
        await settle(pilot)
        assert screen.query_one(YamlEditor).text == CONFIG


async def test_what_reruns_and_what_it_takes_follow_the_text_that_is_not_saved(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(findings, "ASKING_S", 0.01)
    app = dashboard(tmp_path)
    jobs = (planned(1, "train", "learning_rate changed: 0.001 -> 0.0002"), planned(2, "convert", "train ran again"))
    app.files.plan = Rerun(jobs, (("train", 1), ("convert", 1)), "", 0.1, False)  # type: ignore[attr-defined]
    app.files.estimate = Estimate((EstimateLine("train", int(21.4 * GIB), 7200.0, "20 blocks swapped"),))  # type: ignore[attr-defined]
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        await pilot.pause(0.1)
        await settle(pilot)
        assert app.files.asked[-1][0] is None, "the file as it is"  # type: ignore[attr-defined]
        screen.query_one(SettingsForm).move_to_location(("train", "gradient_checkpointing"))
        await pilot.press("space")
        await settle(pilot)
        await pilot.pause(0.1)
        await settle(pilot)
        assert "gradient_checkpointing: false" in app.files.asked[-1][0]  # type: ignore[attr-defined]
        assert "Reruns 2" in text_of(app)
        assert "Estimate 21 GiB" in text_of(app)
        await pilot.press("t")
        await pilot.pause()
        assert "learning_rate changed: 0.001 -> 0.0002" in text_of(app)
        await pilot.press("t")
        await pilot.pause()
        assert "2:00:00" in text_of(app)
        await pilot.press("t")
        await pilot.pause()
        assert "+   gradient_checkpointing: false" in text_of(app)


async def test_a_file_that_somebody_else_changed_is_not_overwritten_unasked(tmp_path: Path) -> None:
    app = dashboard(tmp_path)
    theirs = CONFIG.replace("max_train_steps: 20", "max_train_steps: 9999")
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        screen.query_one(SettingsForm).move_to_location(("train", "network_dim"))
        await pilot.press("delete")
        await settle(pilot)
        (tmp_path / "config.yaml").write_text(theirs)
        await pilot.press("ctrl+s")
        await settle(pilot)
        assert isinstance(app.screen, Confirm)
        assert saved(tmp_path) == theirs
        await pilot.press("t")
        await settle(pilot)
        assert screen.query_one(YamlEditor).text == theirs


async def test_the_difference_to_the_runs_config_is_shown(tmp_path: Path) -> None:
    view = run_view(root=tmp_path)
    assert view.current is not None
    then = view.current.folder.config
    then.parent.mkdir(parents=True)
    then.write_text(CONFIG.replace("max_train_steps: 20", "max_train_steps: 10"))
    app = dashboard(tmp_path, run=view)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        await settle(pilot)
        assert "Against run 1" in text_of(app)
        screen.query_one(Findings).turn(findings.AGAINST_RUN)
        await pilot.pause()
        shown = text_of(app)
        assert "-   max_train_steps: 10" in shown
        assert "+   max_train_steps: 20" in shown


async def test_a_file_that_is_no_yaml_can_still_be_put_right(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("task: [t2v\ntrain: {")
    app = dashboard(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        assert screen.view is not None
        assert screen.view.problems
        screen.query_one(YamlEditor).load_text(CONFIG)
        await pilot.pause(0.6)
        await settle(pilot)
        assert not screen.view.problems
        assert screen.query_one(SettingsForm).move_to_location(RATE)
        await pilot.pause()
        assert "learning_rate" in str(screen.query_one(FieldEditor).field)


async def test_where_there_is_room_for_one_the_text_takes_the_place_of_the_form(tmp_path: Path) -> None:
    app = dashboard(tmp_path)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot)
        form, editor = screen.query_one("#form-pane"), screen.query_one(YamlEditor)
        assert (form.region.area > 0, editor.region.area > 0) == (True, False)
        await pilot.press("v")
        await pilot.pause()
        assert (form.region.area > 0, editor.region.area > 0) == (False, True)
        await pilot.press("escape")
        await pilot.pause()
        assert screen.query_one(SettingsForm).has_focus
        await pilot.resize_terminal(120, 40)
        await pilot.pause()
        assert form.region.area > 0
        assert editor.region.area > 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (CONFIG.replace("train:", "extra: &a\n  again: *a\ntrain:"), "extra: unknown key"),
        (CONFIG + "a: " + "[" * 3000, "nested too deep"),
        (CONFIG.replace("steps: 20", "steps: " + "9" * 6000), "a number cannot be read"),
    ],
    ids=["circle", "depth", "digits"],
)
async def test_text_that_python_gives_up_on_is_a_problem_and_can_be_saved(
    tmp_path: Path, text: str, words: str
) -> None:
    view = run_view(root=tmp_path)
    assert view.current is not None
    view.current.folder.config.parent.mkdir(parents=True)
    view.current.folder.config.write_text(CONFIG)
    app = dashboard(tmp_path, run=view)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        await settle(pilot)
        screen.query_one(YamlEditor).load_text(text)
        await pilot.pause(0.6)
        await settle(pilot)
        assert words in text_of(app)
        await pilot.press("ctrl+s")
        await settle(pilot)
        await settle(pilot)
        assert saved(tmp_path) == text


async def test_an_error_that_is_ours_is_said_and_the_next_step_works(tmp_path: Path) -> None:
    app = dashboard(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        screen.step(lambda file: 1 / 0)
        await settle(pilot)
        assert [note.message for note in app._notifications] == ["ZeroDivisionError: division by zero"]
        screen.query_one(SettingsForm).move_to_location(("train", "network_dim"))
        await pilot.press("delete")
        await settle(pilot)
        assert screen.query_one(YamlEditor).text == CONFIG.replace("  network_dim: 8\n", "")


async def test_saving_takes_what_stands_in_a_field_that_is_open(tmp_path: Path) -> None:
    app = dashboard(tmp_path)
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


async def test_the_focus_goes_to_the_form_when_the_edited_entry_vanishes(tmp_path: Path) -> None:
    app = dashboard(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        screen.query_one(SettingsForm).move_to_location(("sample", "prompts", 0, "prompt"))
        await pilot.press("enter", "end", "x")
        (tmp_path / "config.yaml").write_text(CONFIG[: CONFIG.index("sample:")])
        screen._look()
        await settle(pilot)
        await pilot.pause()
        assert screen.query_one(SettingsForm).has_focus
        assert not screen.query_one(FieldEditor).is_editing


@pytest.mark.parametrize(
    "text",
    [
        CONFIG.replace("\n", "\r\n"),
        CONFIG.replace("\n", "\r\n", 3),
        CONFIG.replace("\n", "\r"),
        CONFIG.replace("a red circle", '"a red\u2028circle"'),
        "\ufeff" + CONFIG.rstrip(),
    ],
    ids=["crlf", "mixed", "cr", "u2028", "bom"],
)
async def test_bytes_stay_as_they_are_but_for_what_is_edited(tmp_path: Path, text: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_bytes(text.encode())
    app = dashboard(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        screen._look()
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
    app = dashboard(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.press("2")
        await settle(pilot)
        screen = app.screen
        assert isinstance(screen, ConfigScreen)
        screen._look()
        await settle(pilot)
        assert len(app._notifications) == 1
        assert "is not UTF-8" in str(screen.query_one("#config-notice", Static).content)
        assert "the config cannot be read" in text_of(app)
        config.write_text(CONFIG)
        screen._look()
        await settle(pilot)
        assert screen.query_one(YamlEditor).text == CONFIG
        assert not screen.query_one("#config-notice").display


async def test_no_value_is_shown_of_a_text_that_never_was_yaml(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG + "train:\n  network_dim: 4\n")
    app = dashboard(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        assert "not YAML yet, so no value is known: see Problems" in text_of(app)
        assert not screen.query_one(SettingsForm).rows


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_the_whole_help_of_each_setting_can_be_read(tmp_path: Path, size: tuple[int, int]) -> None:
    app = dashboard(tmp_path)
    async with app.run_test(size=size) as pilot:
        screen = await opened(pilot)
        form, box = screen.query_one(SettingsForm), screen.query_one(FieldEditor).query_one(VerticalScroll)
        form.focus()
        longer = 0
        for number, row in enumerate(form.rows):
            form.cursor = number
            await pilot.pause()
            assert " ".join(row.help.split()) in " ".join(help_for(app.screen).plain.split())
            assert box.virtual_size.height >= screen.query_one("#field-help").size.height
            assert box.show_vertical_scrollbar == (box.virtual_size.height > box.size.height)
            longer += box.show_vertical_scrollbar
        assert longer


async def test_a_file_that_was_removed_is_written_again(tmp_path: Path) -> None:
    app = dashboard(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        (tmp_path / "config.yaml").unlink()
        screen._look()
        await settle(pilot)
        shown = text_of(app)
        assert "the file was removed: ctrl+s writes it again" in shown
        assert "● unsaved" in shown
        await pilot.press("ctrl+s")
        await settle(pilot)
        await settle(pilot)
        assert saved(tmp_path) == CONFIG
        assert not screen.query_one("#config-notice").display


async def test_control_characters_are_signs_on_the_screen_and_themselves_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG.replace("a red circle", r'"a \x1b[31mred\x1b[0m circle ␛"'))
    app = dashboard(tmp_path)
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
