"""`hv15 lock`: versions, models and clips as they are now, in a file, and what differs from it later."""

from __future__ import annotations

from hv15.commands.options.project import Lock
from hv15.project import Project
from hv15.terminal_text import one_line
from hv15.workflow import make_demo_clips
from hv15.workflow.locking import lock_changes, lock_of, written_lock


def lock(options: Lock) -> int:
    """Write the lock, or with `--check` say what differs from it; return 1 if anything does.

    Raises:
        UserError: there is no lock to check; or a model, a file or a dataset that the config names cannot be used.
    """
    project = Project(options.config, options.overrides)
    path = project.paths.project_lock
    before = written_lock(project) if options.check else None
    project.models.check()
    make_demo_clips(project)
    now = lock_of(project)
    if before is None:
        now.write(path)
        clips = "" if now.dataset is None else f", {len(now.dataset.pairs)} clips"
        packages = len(now.programs.packages)
        print(f"{one_line(str(path))}: {packages} packages, {len(now.models)} models{clips}")
        return 0
    changes = [one_line(each) for each in lock_changes(before, now)]
    if changes:
        differ = "1 thing differs" if len(changes) == 1 else f"{len(changes)} things differ"
        print("\n".join([f"{one_line(str(path))}: {differ} now", *(f"  {each}" for each in changes)]))
        return 1
    print(f"{one_line(str(path))}: everything is as it was")
    return 0
