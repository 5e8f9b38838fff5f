"""Saving the config, also over another program's changes and before $EDITOR opens the file."""

from __future__ import annotations

from collections.abc import Callable

from hv15.errors import UserError
from tui.config_session import ConfigView
from tui.data.config_file import ConfigFile
from tui.dialogs.confirm import Answer, Confirm
from tui.external_editor import edit_file
from tui.screens.base import DashboardScreen
from tui.widgets.findings import Findings


class ConfigSaving(DashboardScreen):
    """The part of the config screen that writes the file; the screen implements `step` and `enter_typed`."""

    view: ConfigView | None = None
    """The state of the file; None until it is read."""

    def step(
        self,
        change: Callable[[ConfigFile], object] | None = None,
        then: Callable[[], object] | None = None,
        refused: Callable[[UserError], bool] | None = None,
    ) -> None:
        """Change the file in a thread, after what was typed so far, and show the result.

        Args:
            change: what to do; None: nothing.
            then: called when it is done.
            refused: called if the file refuses the change; returns whether it has shown that.
        """
        raise NotImplementedError

    def enter_typed(self, then: Callable[[], object]) -> None:
        """Enter what is in an open field and in the text, then call `then`."""
        raise NotImplementedError

    def action_save(self) -> None:
        """Save, including what is in an open field."""
        self.enter_typed(self._save)

    def _save(self) -> None:
        if self.view is not None and self.view.changed_on_disk:
            answers = [
                Answer("mine", "Overwrite it with mine", "o", "warning"),
                Answer("theirs", "Take theirs", "t"),
            ]
            text = "The file has changed on disk since it was read here."
            self.app.push_screen(Confirm("Save", text, answers), self._resolve)
        elif self.view is not None and self.view.dirty:
            self.step(lambda file: file.save(), self._say_saved)
        else:
            self.notify("nothing to save", markup=False)

    def _resolve(self, answer: str | None) -> None:
        if answer == "mine":
            self.step(lambda file: file.save(force=True), self._say_saved)
        elif answer == "theirs":
            self.step(lambda file: file.reload())

    def _say_saved(self) -> None:
        problems = len(self.view.problems) if self.view else 0
        words = f"saved, with {problems} problem{'s' * (problems != 1)} in it" if problems else "saved"
        self.notify(words, severity="warning" if problems else "information", markup=False)
        self.query_one(Findings).ask_later(again=True)

    def action_editor(self) -> None:
        if self.view is not None and self.view.dirty:
            answers = [Answer("save", "Save, then edit", "s", "success")]
            text = "The editor reads the file, which does not have the unsaved edits."
            self.app.push_screen(Confirm("$EDITOR", text, answers), self._saved_for_editor)
        else:
            self._open_editor()

    def _saved_for_editor(self, answer: str | None) -> None:
        if answer == "save":
            self.step(lambda file: file.save(), self._open_editor)

    def _open_editor(self) -> None:
        try:
            with self.app.suspend():
                edit_file(self.dashboard.config_file)
        except UserError as error:
            self.show_error(error)
        except Exception as error:  # a driver that cannot be suspended: the web, a test
            self.show_error(error)
        self.step(lambda file: file.reload())
