"""The clips of the demo, which are drawn before anything is planned."""

from __future__ import annotations

from hv15.project import Project


def make_demo_clips(project: Project) -> None:
    """Draw the demo's clips if they are missing: a plan needs the content of the dataset.

    Raises:
        UserError: a folder cannot be written.
    """
    if project.settings.models.source != "demo":
        return
    resolve = project.settings.resolve
    asked = [resolve(each.video_directory) for each in project.dataset.datasets if each.video_directory]
    if missing := [folder for folder in asked if not folder.exists()]:
        from hv15.demo.clips import DEMO_FOLDERS

        for name, write in DEMO_FOLDERS.items():
            if project.root / name in missing:
                write(project.root / name)
