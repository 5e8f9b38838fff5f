"""The screen Config on a real file: what the form does to its bytes, and what is said about them."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.widgets import Static

from tests.tui.config_screen import RATE, checked, opened, saved, typed
from tests.tui.watched import CONFIG, GIB, dashboard, planned, run_view, settle, text_of
from tui.data.estimate import Estimate, EstimateLine
from tui.data.rerun import Rerun
from tui.dialogs.confirm import Confirm
from tui.widgets import findings
from tui.widgets.field_editor import FieldEditor
from tui.widgets.findings import Findings
from tui.widgets.settings_form import SettingsForm
from tui.widgets.yaml_editor import YamlEditor


async def test_an_edit_in_the_form_changes_that_value_in_the_file_and_nothing_else(tmp_path: Path) -> None:
    app = dashboard(tmp_path, at="config")
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
    app = dashboard(tmp_path, at="config")
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


@pytest.mark.slow
async def test_what_is_typed_into_the_text_is_checked_and_shows_in_the_form(tmp_path: Path) -> None:
    app = dashboard(tmp_path, at="config")
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        editor = screen.query_one(YamlEditor)
        editor.focus()
        line = CONFIG.splitlines().index("  network_dim: 8")
        editor.move_cursor((line, len("  network_di")))
        await pilot.press("n")
        await checked(pilot)
        shown = text_of(app)
        assert f"{line + 1}:3" in shown
        assert "train.network_dinm: unknown key; did you mean 'network_dim'?" in shown
        await pilot.press("ctrl+t")
        await pilot.press("backspace", *["delete"] * 0)
        await checked(pilot)
        assert screen.view is not None
        assert not screen.view.problems
        editor.move_cursor((line, len("  network_dim: 8")))
        await pilot.press("0")
        await checked(pilot)
        fields = {field.path: field for section in screen.view.sections for field in section.fields}
        assert fields["train.network_dim"].text == "80"


async def test_enter_on_a_problem_goes_to_its_place(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG.replace("network_dim: 8", "network_dim: eight"))
    app = dashboard(tmp_path, at="config")
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
    app = dashboard(tmp_path, at="config")
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        form = screen.query_one(SettingsForm)
        everything = len(form.rows)
        await pilot.press("slash", *"warm")
        await settle(pilot)
        names = [getattr(row, "name", "") for row in form.rows]
        assert "lr_warmup_steps" in names
        assert "network_dim" not in names
        assert form.field is not None
        assert form.field.name == "lr_warmup_steps", "the cursor stands on the hit"
        await pilot.press("enter")
        await pilot.pause()
        assert form.has_focus
        assert "train.lr_warmup_steps" in str(screen.query_one("#field-help", Static).content)
        await pilot.press("escape")
        await pilot.pause()
        assert len(form.rows) == everything
        assert form.has_focus
        assert form.field.name == "lr_warmup_steps"
        await pilot.press("c")
        await pilot.pause()
        names = [getattr(row, "name", "") for row in form.rows]
        assert "learning_rate" in names
        assert "optimizer_type" not in names


@pytest.mark.slow
async def test_backspace_deletes_a_character_while_typing_and_never_a_setting(tmp_path: Path) -> None:
    app = dashboard(tmp_path, at="config")
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        screen.query_one(SettingsForm).move_to_location(RATE)
        await pilot.press("backspace")
        await settle(pilot)
        assert screen.query_one(YamlEditor).text == CONFIG
        await pilot.press("enter", "end", "backspace")
        assert screen.query_one(FieldEditor).typed == "1e-"


@pytest.mark.slow
async def test_the_error_of_a_value_that_is_gone_is_gone_from_the_form(tmp_path: Path) -> None:
    app = dashboard(tmp_path, at="config")
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        form, said = screen.query_one(SettingsForm), screen.query_one("#field-help", Static)
        form.move_to_location(("train", "network_dim"))
        await pilot.press("enter", "end", *"x", "enter")
        await settle(pilot)
        assert "✗" in str(said.content)
        # the field is open when the value goes, and is then left as it is
        await pilot.press("enter", "ctrl+z")
        await settle(pilot)
        assert "✗" not in str(said.content)
        await pilot.press("escape")
        await settle(pilot)
        assert "✗" not in str(said.content)
        assert screen.query_one(YamlEditor).text == CONFIG
        assert form.field is not None
        assert form.field.problem == ""


async def test_a_value_that_is_refused_stays_in_its_field_until_that_is_left(tmp_path: Path) -> None:
    app = dashboard(tmp_path, at="config")
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        form, said = screen.query_one(SettingsForm), screen.query_one("#field-help", Static)
        field = screen.query_one(FieldEditor)
        form.move_to_location(("sample", "video_size"))
        await pilot.press("enter", "end", "backspace", "enter")
        await settle(pilot)
        assert (field.is_editing, field.typed) == (True, "[64, 64")
        assert "✗" in str(said.content)
        await pilot.press("escape")
        await settle(pilot)
        assert "✗" not in str(said.content)
        assert not app._notifications
        assert screen.query_one(YamlEditor).text == CONFIG


async def test_entries_of_lists_come_and_go(tmp_path: Path) -> None:
    app = dashboard(tmp_path, at="config")
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
    app = dashboard(tmp_path, at="config")
    reason = (
        "learning_rate changed: 0.001 -> 0.0002, so it is another training; to go on set train.continue_from: latest"
    )
    jobs = (planned(1, "train", reason), planned(2, "convert", "train ran again"))
    app.files.plan = Rerun(jobs)  # type: ignore[attr-defined]
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
        assert reason in text_of(app), "whole, below the jobs"
        await pilot.press("t")
        await pilot.pause()
        assert "2:00:00" in text_of(app)
        await pilot.press("t")
        await pilot.pause()
        assert "+   gradient_checkpointing: false" in text_of(app)


async def test_a_file_that_somebody_else_changed_is_not_overwritten_unasked(tmp_path: Path) -> None:
    app = dashboard(tmp_path, at="config")
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


@pytest.mark.slow
async def test_the_difference_to_the_runs_config_is_shown(tmp_path: Path) -> None:
    view = run_view(root=tmp_path)
    assert view.current is not None
    then = view.current.folder.config
    then.parent.mkdir(parents=True)
    then.write_text(CONFIG.replace("max_train_steps: 20", "max_train_steps: 10"))
    app = dashboard(tmp_path, run=view, at="config")
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
    app = dashboard(tmp_path, at="config")
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        assert screen.view is not None
        assert screen.view.problems
        screen.query_one(YamlEditor).load_text(CONFIG)
        await checked(pilot)
        assert not screen.view.problems
        assert screen.query_one(SettingsForm).move_to_location(RATE)
        await pilot.pause()
        assert "learning_rate" in str(screen.query_one(FieldEditor).field)


async def test_where_there_is_room_for_one_the_text_takes_the_place_of_the_form(tmp_path: Path) -> None:
    app = dashboard(tmp_path, at="config")
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
