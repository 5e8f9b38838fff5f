"""`hv15 check`: what is in place before a run, and what is not, for a person or as a record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from hv15.collection import collect_rarely
from hv15.commands.listing import MOST_LISTED
from hv15.commands.options.project import Check as Options
from hv15.errors import UserError, of_the_system
from hv15.project import Project
from hv15.records.checks import Check, checks_json, problem_checks
from hv15.records.problems import ConfigError, Place
from hv15.terminal_text import json_text


def check(options: Options) -> int:
    """Check everything that can be checked without computing with a model; 2 when something is wrong."""
    collect_rarely()
    if options.json:
        checks = list(_checks(options))
        print(json_text(checks_json(checks)))
        return 2 if any(each.state == "problem" for each in checks) else 0
    problems = _print(_checks(options))
    print(f"{problems} problem{'s' * (problems > 1)}" if problems else "everything is in place")
    return 2 if problems else 0


def _checks(options: Options) -> Iterator[Check]:
    """Yield each check as soon as its outcome is known."""
    from hv15.commands.checks import (
        beforehand_checks,
        dataset_checks,
        disk_checks,
        failed,
        model_checks,
        publish_checks,
        sample_checks,
    )
    from hv15.commands.machine_checks import machine_checks
    from hv15.commands.notify import notify_checks

    try:
        project = Project(options.config, options.overrides, experiment=options.experiment)
    except ConfigError as error:
        yield from problem_checks(error)
        return
    except OSError as error:
        yield failed("config", of_the_system(error))
        return
    from hv15.commands.notes import checkpoint_line
    from hv15.workflow import make_demo_clips

    make_demo_clips(project)
    found = f"task {project.settings.task}, {checkpoint_line(project)}"
    yield Check("ok", "config", found, place=Place(options.config))
    parts: dict[str, Callable[[Project], Iterator[Check]]] = {
        "models": model_checks,
        "machine": machine_checks,
        "beforehand": beforehand_checks,
        "sample": sample_checks,
        "dataset": dataset_checks,
        "publish": publish_checks,
        "disk": disk_checks,
        "notify": notify_checks,
    }
    told = list[Check]()
    for subject, find_checks in parts.items():
        if options.models and subject != "models":
            continue
        try:
            for each in find_checks(project):
                told.append(each)
                yield each
        except ConfigError as error:
            told += problem_checks(error, subject)
            yield from problem_checks(error, subject)
        except UserError as error:
            told.append(failed(subject, error))
            yield told[-1]
        except OSError as error:
            if error.filename is None:
                raise
            yield failed(subject, of_the_system(error))
    if not options.models and not project.run:
        from hv15.commands.experiment_checks import experiment_checks

        yield from experiment_checks(project, told)
    project.save_caches()


def _print(checks: Iterator[Check]) -> int:
    """Print each check in a line as soon as it is known; return how many problems there are.

    Of many of a kind only the first are listed.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for each in checks:
        counts[each.subject, each.state] += 1
        if counts[each.subject, each.state] <= MOST_LISTED:
            _print_line(each)
    for (subject, state), count in counts.items():
        if count > MOST_LISTED:
            more = f"... and {count - MOST_LISTED} more"
            _print_line(Check("problem" if state == "problem" else "ok", subject, more))
    return sum(count for (_, state), count in counts.items() if state == "problem")


def _print_line(check: Check) -> None:
    """Mark problems and notes as such, and escape names that are not UTF-8."""
    note = "note: " if check.state == "note" else ""
    text = f"{'!' if check.state == 'problem' else ' '} {check.subject:14} {note}{check.text}".replace("\n", "\n    ")
    print(text.encode("utf-8", "backslashreplace").decode())
