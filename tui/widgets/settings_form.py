"""All settings of the config in their sections: values, defaults, what was changed, what is wrong."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive

from tui.data.config_form import FormField, FormSection
from tui.widgets.rows import Rows, cell

FormRow = FormSection | FormField
NO_MATCH = "no setting matches"
NOT_YAML = "not YAML yet, so no value is known: see Problems"


class SettingsForm(Rows[FormRow]):
    """One line for each setting, under the headings of their sections."""

    PART_NAME = "Settings"
    KEYS_HELP = """All settings, with their defaults. ● marks what differs from its default, ✗ what is wrong. Enter
    edits the value; space goes to the next choice; delete removes the setting from the file, so that its default holds.
    / searches names and help; c shows only what was changed. Every edit changes that one value in the file and nothing
    else."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "space", "cycle", "Next choice", id="form-cycle", show=False, tooltip="true or false, or the next choice"
        ),
        Binding("delete", "default", "Default", id="form-default", tooltip="remove it: its default holds"),
        Binding(
            "c", "only_changed", "Changed", id="form-changed", show=False, tooltip="show only what was changed, or all"
        ),
        Binding(
            "plus",
            "add",
            "Add",
            id="form-add",
            show=False,
            tooltip="add an entry to the list here: a dataset, a prompt, a LoRA",
        ),
        Binding("minus", "remove", "Remove", id="form-remove", show=False, tooltip="remove this entry of a list"),
    ]

    @property
    def HELP(self) -> str:  # type: ignore[override]  # noqa: N802  (Textual's name, and a class attribute there)
        """The whole help of what is under the cursor, which has little room beside the form, then that of the keys."""
        row = self.current
        name = row.path if isinstance(row, FormField) else row.title if row else ""
        return f"{name}: {row.help} {self.KEYS_HELP}" if row else self.KEYS_HELP

    words: reactive[str] = reactive("")
    """What is searched for."""
    only_changed: reactive[bool] = reactive(False)

    @dataclass
    class Edit(Message):
        """A person wants to type a value."""

        field: FormField

    @dataclass
    class Set(Message):
        """A value was chosen."""

        field: FormField
        text: str

    @dataclass
    class Default(Message):
        """The setting goes back to its default."""

        field: FormField

    @dataclass
    class AddEntry(Message):
        """A person wants to add an entry to a list of this section, or to the list that this section is an entry of."""

        section: FormSection

    @dataclass
    class RemoveEntry(Message):
        """A person wants to remove an entry of a list."""

        section: FormSection

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.sections: tuple[FormSection, ...] = ()
        self.empty = NO_MATCH

    def show(self, sections: tuple[FormSection, ...]) -> None:
        """Show these sections; there are none if the text has never been YAML."""
        self.sections = sections
        self.empty = NO_MATCH if sections else NOT_YAML
        self._filter()

    def watch_words(self) -> None:
        self._filter()
        if (hit := self._best_hit()) is not None:
            self.move_to_location(hit.location)

    def _best_hit(self) -> FormField | None:
        """The setting that fits the search best: by its name, else by its help."""
        fields = [row for row in self.rows if isinstance(row, FormField)] if self.words else []
        words = self.words.lower().split()
        named = [field for field in fields if all(word in field.path.lower() for word in words)]
        return next(iter(named or fields), None)

    def watch_only_changed(self) -> None:
        self._filter()

    def _filter(self) -> None:
        rows: list[FormRow] = []
        for section in self.sections:
            shown = [field for field in section.fields if self._is_shown(field)]
            if shown or (not self.words and not self.only_changed):
                rows += [section, *shown]
        self.set_rows(rows)

    def _is_shown(self, field: FormField) -> bool:
        if self.only_changed and not (field.changed or field.problem):
            return False
        return not self.words or field.matches(self.words)

    def key(self, row: FormRow) -> Hashable:
        return (isinstance(row, FormSection), row.location)

    def draw(self, row: FormRow, width: int) -> Content:
        if isinstance(row, FormSection):
            changed = sum(field.changed for field in row.fields)
            wrong = sum(bool(field.problem) for field in row.fields)
            facts = (f" ● {changed}" if changed else "") + (f" ✗ {wrong}" if wrong else "")
            return Content.assemble((row.title, "bold $accent"), (facts, "$faint"))
        mark, colour = ("✗", "$error") if row.problem else ("●", "$accent") if row.changed else (" ", "")
        name = min(30, max(16, width * 45 // 100))
        value = row.text if row.in_file else row.default_text
        style = "$error" if row.problem else "bold $foreground" if row.changed else "" if row.in_file else "$faint"
        return Content("").join(
            [
                Content.styled(f"{mark} ", colour) if colour else Content("  "),
                cell(row.name, name),
                cell(value, width - name - 2, style),
            ]
        )

    @property
    def field(self) -> FormField | None:
        """The setting under the cursor; None on a heading."""
        return self.current if isinstance(self.current, FormField) else None

    @property
    def section(self) -> FormSection | None:
        """The section that the cursor is in."""
        above = [row for row in self.rows[: self.cursor + 1] if isinstance(row, FormSection)]
        return above[-1] if above else None

    def move_to_location(self, location: tuple[str | int, ...]) -> bool:
        """Put the cursor on a setting."""
        return self.move_to_key((False, location)) or self.move_to_key((True, location))

    def action_choose(self) -> None:
        if self.field is not None:
            self.post_message(self.Edit(self.field))

    def action_cycle(self) -> None:
        field = self.field
        if field is None:
            return
        if not (choices := field.choices):
            self.action_choose()
            return
        now = choices.index(field.text) if field.text in choices else -1
        following = choices[(now + 1) % len(choices)]
        self.post_message(self.Set(field, following))

    def action_default(self) -> None:
        if self.field is not None and self.field.in_file:
            self.post_message(self.Default(self.field))

    def action_only_changed(self) -> None:
        self.only_changed = not self.only_changed

    def action_add(self) -> None:
        if self.section is not None:
            self.post_message(self.AddEntry(self.section))

    def action_remove(self) -> None:
        if self.section is not None and self.section.is_entry:
            self.post_message(self.RemoveEntry(self.section))
