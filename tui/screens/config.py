"""Config: a form and the file side by side, problems, what will run again, and the memory and time it will take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.content import Content
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Input, Static, TextArea

from hv15.errors import UserError
from hv15.records.problems import Location, Problem
from tui.config_session import ConfigSession, ConfigView
from tui.data.config_diff import DiffLine
from tui.data.config_file import ConfigFile
from tui.data.config_form import LISTS, FormField
from tui.dialogs.confirm import Answer, Confirm
from tui.messages import RunSeen
from tui.screens.config_saving import ConfigSaving
from tui.widgets.field_editor import FieldEditor
from tui.widgets.findings import Findings
from tui.widgets.rows import Rows
from tui.widgets.settings_form import SettingsForm
from tui.widgets.yaml_editor import YamlEditor
from tui.workers import run_beside

TYPING_S = 0.4
"""The text is checked this long after the last key."""
CHANGED = "another program changed the file on disk: ctrl+s asks what to do"
REMOVED = "the file was removed: ctrl+s writes it again"


class ConfigScreen(ConfigSaving):
    """Everything that is done to the file goes through one ConfigSession, in a thread, in the order of the keys."""

    NAME: ClassVar[str] = "config"
    FIRST: ClassVar[str] = "#form"
    CSS_PATH = "config.tcss"
    HELP = """The project's config.yaml as a form and as text. What you change in one shows in the other. Below: what is
    wrong, what will run again and why, memory and time, and what differs from the file and from the run."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "save", "Save", id="config-save", priority=True, tooltip="write the file"),
        Binding("slash", "search", "Search", id="config-search", tooltip="search names and help"),
        Binding("v", "view", "YAML", id="config-view", tooltip="go to the text, or back to the form"),
        Binding("t,ctrl+t", "turn(1)", "Next page", id="config-turn", tooltip="problems, what reruns, estimate, diffs"),
        Binding("ctrl+e", "editor", "$EDITOR", id="config-editor", tooltip="open the file in $EDITOR"),
        Binding("ctrl+z", "undo", "Undo", id="config-undo", show=False, tooltip="take back the last edit"),
        Binding("ctrl+y", "redo", "Redo", id="config-redo", show=False, tooltip="do it again"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.session: ConfigSession | None = None
        self._steps = asyncio.Lock()
        self._typing: Timer | None = None
        self._loading = self._begun = False
        self._trouble = ""
        """Why the config cannot be shown."""

    @property
    def unsaved(self) -> str:
        return self.dashboard.config_file.name if self.view is not None and self.view.dirty else ""

    def body(self) -> Iterable[Widget]:
        yield Static(id="config-notice")
        with Container(id="config-rows"):
            with Container(id="config-columns"):
                with Vertical(id="form-pane", classes="pane"):
                    yield Input(placeholder="search names and help; esc ends", id="search", compact=True)
                    yield SettingsForm(id="form")
                    yield FieldEditor(id="field")
                with Vertical(id="yaml-pane", classes="pane"):
                    yield YamlEditor(id="yaml")
            yield Findings(self.dashboard.files, id="findings", classes="pane")

    def on_mount(self) -> None:
        self.session = ConfigSession(self.dashboard.config_file)
        self.query_one("#form-pane").border_title = "Settings"
        self.query_one("#yaml-pane").border_title = Content(self.dashboard.config_file.name)
        self.set_interval(2.0, self._check_disk)
        self.call_after_refresh(self._begin)

    def _begin(self) -> None:
        """Read the file once the screen is drawn: a busy thread would delay the first picture."""
        self._begun = True
        self.step()

    # The file

    def step(
        self,
        change: Callable[[ConfigFile], object] | None = None,
        then: Callable[[], object] | None = None,
        refused: Callable[[UserError], bool] | None = None,
    ) -> None:
        """Change the file in a thread, after what was typed so far, and show the result.

        Args:
            then: called when it is done.
            refused: called if the file refuses the change; returns whether it has shown that.
        """
        run_beside(self, partial(self._step, change, then, refused), "config-steps")

    async def _step(
        self,
        change: Callable[[ConfigFile], object] | None,
        then: Callable[[], object] | None,
        refused: Callable[[UserError], bool] | None,
    ) -> None:
        try:
            async with self._steps:
                await self._do(change)
            if then is not None:
                then()
        except Exception as error:  # shown to the user, whatever it is
            if self.is_attached and refused is not None and isinstance(error, UserError) and refused(error):
                return
            if self.is_attached:
                self._failed(error, asked=then is not None or change not in (None, _take_over))

    async def _do(self, change: Callable[[ConfigFile], object] | None) -> None:
        assert self.session is not None
        text = self.query_one(YamlEditor).exact_text if self.view is not None else None
        view = await asyncio.to_thread(self.session.step, change, text=text)
        if not self.is_attached:
            return
        cured, self._trouble = bool(self._trouble), ""
        if view is not self.view:
            typed_on = text is not None and self.query_one(YamlEditor).exact_text != text
            self._show(view, keep_text=typed_on)
        elif cured:
            self._entitle()

    def _failed(self, error: Exception, *, asked: bool) -> None:
        """Show an error; one that returns with each check is shown once, and stays in the notice."""
        words = getattr(error, "message", None) or f"{type(error).__name__}: {error}"
        if asked or words != self._trouble:
            self.show_error(error)
        if not asked:
            self._trouble = words
            if self.view is None:
                self.query_one(SettingsForm).empty = "no settings: the config cannot be read"
            self._entitle()

    def _show(self, view: ConfigView, *, keep_text: bool = False) -> None:
        self.view = view
        editor, form = self.query_one(YamlEditor), self.query_one(SettingsForm)
        if not keep_text:
            self._loading = editor.exact_text != view.text
            editor.load(view.text)
        wrong = frozenset(each.place.line for each in view.problems if each.place.line is not None)
        new = frozenset(line.new_line for line in view.unsaved if line.sign == "+" and line.new_line is not None)
        editor.mark(wrong, new)
        form.show(view.sections)
        field = self.query_one(FieldEditor)
        if form.current is None:
            self._form_moved()
        elif field.is_editing:
            field.explain(form.current)
        else:
            field.show(form.current)
        self.query_one(Findings).show(view)
        self._entitle()

    def _entitle(self) -> None:
        view, form = self.view, self.query_one(SettingsForm)
        words = self._trouble
        if view is not None and not words:
            words = REMOVED if view.removed else CHANGED if view.changed_on_disk else ""
        self.say("#config-notice", Content(words))
        self.query_one("#config-notice").set_class(bool(words), "-shown")
        if view is None:
            return
        changed = sum(field.changed for section in view.sections for field in section.fields)
        only = " (only these)" if form.only_changed else ""
        self.query_one("#form-pane").border_subtitle = Content(f"● {changed} changed{only}")
        state = "● unsaved: ctrl+s" if view.dirty else "✓ saved"
        self.query_one("#yaml-pane").border_subtitle = Content(state)

    def _check_disk(self) -> None:
        """Check whether another program changed the file; take the change over when nothing is unsaved."""
        if self.is_current and self._begun and not self._steps.locked():
            self.step(_take_over)

    def on_run_seen(self, message: RunSeen) -> None:
        if self.session is not None and message.view.current is not None:
            config = message.view.current.folder.config
            if self.session.run_config != config:
                self.session.run_config = config
                if self._begun:
                    self.step()

    # The form

    @on(Rows.Moved, "#form")
    def _form_moved(self) -> None:
        form, field = self.query_one(SettingsForm), self.query_one(FieldEditor)
        if field.has_focus_within:  # the setting being edited is gone
            form.focus()
        field.show(form.current)
        field.close()
        if form.has_focus and form.current is not None and self.view is not None:
            place = self.view.positions.get(form.current.location)
            if place is not None:
                self.query_one(YamlEditor).go_to(*place)

    @on(SettingsForm.Edit)
    def _edit(self, event: SettingsForm.Edit) -> None:
        self.query_one(FieldEditor).edit(event.field)

    @on(SettingsForm.Set)
    @on(FieldEditor.Entered)
    def _set(self, event: SettingsForm.Set | FieldEditor.Entered) -> None:
        self._enter(event.field, event.text)

    def _enter(self, field: FormField, text: str, then: Callable[[], object] | None = None) -> None:
        self.query_one(FieldEditor).close()
        self.query_one(SettingsForm).focus()
        changed = text != (field.text if field.in_file else "")
        if changed or then is not None:
            change = (lambda file: file.set_text(field.location, text)) if changed else None
            self.step(change, then, partial(self._refused, field, text))

    def _refused(self, field: FormField, text: str, error: UserError) -> bool:
        """Open the field again with what was typed; return whether the cursor is still on its setting."""
        form = self.query_one(SettingsForm)
        if not (form.has_focus and form.field is not None and form.field.location == field.location):
            return False
        self.query_one(FieldEditor).refuse(form.field, text, error)
        return True

    @on(SettingsForm.Default)
    def _default(self, event: SettingsForm.Default) -> None:
        location = event.field.location
        self.step(lambda file: file.remove(location))

    @on(FieldEditor.Left)
    def _field_left(self) -> None:
        form = self.query_one(SettingsForm)
        self.query_one(FieldEditor).show(form.current)
        form.focus()

    @on(SettingsForm.AddEntry)
    def _add_entry(self, event: SettingsForm.AddEntry) -> None:
        here = event.section.location
        lists = {each.title: each for each in LISTS if here[: len(each.location)] == each.location}
        lists = lists or {each.title: each for each in LISTS if here and each.location[: len(here)] == here}

        def answered(title: str | None) -> None:
            if title in lists:
                chosen = lists[title]
                self.step(lambda file: file.add_entry(chosen.location, chosen.start))

        if len(lists) == 1:
            answered(next(iter(lists)))
        elif lists:
            answers = [Answer(each.title, f"A {each.entry}", each.entry[0].lower()) for each in lists.values()]
            self.app.push_screen(Confirm("Add", "What is to be added?", answers), answered)
        else:
            self.notify("go to datasets or sample: only lists take new entries", markup=False)

    @on(SettingsForm.RemoveEntry)
    def _remove_entry(self, event: SettingsForm.RemoveEntry) -> None:
        def answered(answer: str | None) -> None:
            if answer == "remove":
                self.step(lambda file: file.remove_entry(event.section.location))

        question = f"Remove {event.section.title} from the config? ctrl+z brings it back."
        self.app.push_screen(Confirm("Remove", question, [Answer("remove", "Remove", "r", "warning")]), answered)

    def action_search(self) -> None:
        box = self.query_one("#search", Input)
        box.add_class("-shown")
        self.remove_class("-yaml")
        box.focus()

    @on(Input.Changed, "#search")
    def _searched(self, event: Input.Changed) -> None:
        self.query_one(SettingsForm).words = event.value

    @on(Input.Submitted, "#search")
    def _search_done(self) -> None:
        self.query_one(SettingsForm).focus()

    def action_leave_field(self) -> None:
        box, form = self.query_one("#search", Input), self.query_one(SettingsForm)
        if box.has_focus or (form.has_focus and form.words):
            box.value = ""
            box.remove_class("-shown")
        if self.has_class("-yaml"):
            self.action_view()
        form.focus()

    # The text

    @on(TextArea.Changed, "#yaml")
    def _typed(self) -> None:
        if self._loading:
            self._loading = False
            return
        if self._typing is not None:
            self._typing.stop()
        self._typing = self.set_timer(TYPING_S, self._check_typed)

    def _check_typed(self) -> None:
        self._typing = None
        self.step()

    @on(TextArea.SelectionChanged, "#yaml")
    def _text_moved(self, event: TextArea.SelectionChanged) -> None:
        form = self.query_one(SettingsForm)
        if self.view is not None and event.text_area.has_focus:
            location = self.view.location_at(event.selection.end[0] + 1)
            if location is not None:
                form.move_to_location(location)

    def action_view(self) -> None:
        """Go to the text and back; where there is room for only one, the other is hidden."""
        if self.query_one(YamlEditor).has_focus or self.has_class("-yaml"):
            self.remove_class("-yaml")
            self.query_one(SettingsForm).focus()
        else:
            self.add_class("-yaml")
            self.query_one(YamlEditor).focus()

    def action_undo(self) -> None:
        self.step(lambda file: file.undo())

    def action_redo(self) -> None:
        self.step(lambda file: file.redo())

    # The pages below

    def action_turn(self, count: int) -> None:
        findings = self.query_one(Findings)
        findings.turn(findings.page + count)

    @on(Rows.Chosen, "#problems")
    def _to_problem(self, event: Rows.Chosen) -> None:
        if isinstance(event.row, Problem):
            place = event.row.place
            if place.line is not None:
                self._go_to(place.line, place.column or 1)
            else:
                self.go_to_location(place.setting)

    @on(Rows.Chosen, "#unsaved")
    @on(Rows.Chosen, "#against")
    def _to_line(self, event: Rows.Chosen) -> None:
        if isinstance(event.row, DiffLine) and event.row.new_line is not None:
            self._go_to(event.row.new_line, 1)

    def _go_to(self, line: int, column: int) -> None:
        self.add_class("-yaml")
        self.query_one(YamlEditor).go_to(line, column, focus=True)

    def go_to_location(self, location: Location) -> None:
        """Show a setting, because another screen names it."""
        self.query_one(SettingsForm).move_to_location(location)

    # Saving

    def enter_typed(self, then: Callable[[], object]) -> None:
        editor = self.query_one(FieldEditor)
        if editor.is_editing and editor.field is not None:
            self._enter(editor.field, editor.typed, then)
        else:
            self.step(then=then)


def _take_over(file: ConfigFile) -> None:
    """Read the file again if another program changed it; a missing or half-written file is read later."""
    with suppress(UserError):
        if file.changed_on_disk() and not file.dirty:
            file.reload()
