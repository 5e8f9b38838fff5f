"""Model files that the workflow would bring, for commands that run without it."""

from __future__ import annotations

from collections.abc import Collection

from hv15.choices import Role
from hv15.project import Project


def fetch_models(project: Project, roles: Collection[Role] | None = None) -> None:
    """Copy or download models as `models.source` says, and check that they are there.

    Args:
        roles: None: all that the config needs.

    Raises:
        UserError: a file is missing, or cannot be downloaded.
    """
    from hv15.demo.layout import copy_base, demo_is_copied
    from hv15.models.hub import download, hub_files

    models = project.settings.models
    folder = project.settings.resolve(models.directory)
    if models.source == "demo" and not demo_is_copied(folder):
        copy_base(folder)
    if models.source == "hub":
        files = hub_files(project.settings)
        downloaded = [role for role in roles or files if role not in project.models.own]
        if downloaded:
            download(project.settings, [target for role in downloaded for target in files[role].targets])
    project.models.check(roles)
