"""`hv15 notify`: where notices of a project's runs go, what is missing for it, and a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.commands.options.runs import Notify
from hv15.config.notify import NotifySettings
from hv15.errors import UserError
from hv15.notices.delivery import deliver
from hv15.notices.mentioned import users_file
from hv15.notices.readiness import is_wanted, missing, places
from hv15.notices.settings import lenient_settings, notify_settings
from hv15.notices.wording import minutes, notice_of_test
from hv15.records.checks import Check
from hv15.records.problems import Place
from hv15.runs.record import RunFolder
from hv15.terminal_text import one_line

if TYPE_CHECKING:
    from hv15.project import Project


def notify(options: Notify) -> int:
    """Say where notices go, or send a test there; 1 if it does not arrive everywhere.

    Raises:
        UserError: the settings are wrong, or name no place.
    """
    if not (options.project.is_dir() or options.config.is_file()):
        raise UserError.at(options.project, "no such folder or file", hint="name a project's folder, or none")
    root = options.config.absolute().parent
    settings = notify_settings(options.config, options.overrides)
    if not places(settings):
        file = users_file()
        own = f", or ntfy: TOPIC in {file} for all projects" if file is not None else ""
        hint = f"write `notify: {{ntfy: TOPIC}}` into {options.config}{own} (docs/notices.md)"
        raise UserError("no notices are sent: no place is set for them", hint=hint)
    if not options.test:
        print("\n".join([_in_words(settings), *_warnings(settings, root)]))
        return 0
    found = deliver(notice_of_test(root.name or "/"), settings, root)
    print("\n".join(map(str, found)))
    return 0 if all(each.sent for each in found) else 1


def notices_of_run(run: RunFolder) -> list[str]:
    """Return what a person should know when a run is started: where its notices go, and what is missing for that."""
    settings, problems = lenient_settings(run.config)
    told = [_in_words(settings), *_warnings(settings, run.root)] if is_wanted(settings) else []
    return [*told, *(f"notices: {each}" for each in problems)]


def notify_checks(project: Project) -> Iterator[Check]:
    """Yield where notices go, and a note for each thing that this machine lacks to send them."""
    settings = notify_settings(project.config, project.overrides)
    if not is_wanted(settings):
        return
    place = Place(setting=("notify",))
    yield Check("ok", "notify", _in_words(settings).removeprefix("notices: "), place=place)
    for each in missing(settings, project.root):
        setting, _, words = each.partition(": ")
        yield Check("note", "notify", f"on this machine: {words}", place=Place(setting=tuple(setting.split("."))))


def _in_words(settings: NotifySettings) -> str:
    if not settings.events:
        return "notices: none, as notify.events is empty"
    stall = f" after {minutes(60 * settings.stall_minutes)}"
    events = [f"{each}{stall if each == 'stall' else ''}" for each in settings.events]
    details = ", with details" if settings.details else ""
    return f"notices: {', '.join(events)}{details}, by {', '.join(map(one_line, places(settings).values()))}"


def _warnings(settings: NotifySettings, root: Path) -> list[str]:
    return [f"  note: {each}" for each in missing(settings, root)]
