"""The stages that bring model files into a project, and check them.

The base config has them. An experiment checks model files of its own if it names some.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from hv15.choices import Role
from hv15.demo.layout import DEMO_VERSION, demo_is_copied
from hv15.errors import UserError
from hv15.project import Project
from hv15.records.json_values import JsonObject, RecordError
from hv15.records.paths import ProjectPaths
from hv15.records.rules import Rule
from hv15.records.spec import Spec
from hv15.workflow.stage import Found, Stage, compare, in_project


class ModelStages:
    """The models of one run."""

    def __init__(self, project: Project) -> None:
        self._project, self._root = project, project.root
        self._roles = project.settings.roles
        self._made: dict[Role, tuple[Path, ...]] = {}

    def stages(self) -> Iterator[Stage]:
        """Yield the stages, each after those that it reads from.

        Raises:
            UserError: a model file is missing, or is not one that the base config downloads.
        """
        if self._project.run:
            self._refuse_other_downloads()
        elif self._source == "demo":
            yield self._copying()
        elif self._source == "hub":
            for role in self._roles:
                yield self._download(role)
        if self._source != "demo" and self._checker == self._project.run:
            yield self._checking()

    def made(self, *roles: Role) -> tuple[Path, ...]:
        """The model files that the workflow itself makes or downloads; files that a person gave need no job."""
        for role in roles:
            if role not in self._made:
                self._made[role] = tuple(in_project(path, self._root) for path in self._project.models.made(role))
        return tuple(path for role in roles for path in self._made[role])

    @property
    def checked(self) -> list[Path]:
        """What says that the model files are good; none for the demo's."""
        return [] if self._source == "demo" else [ProjectPaths(run=self._checker).checked_models]

    @property
    def _source(self) -> str:
        return self._project.settings.models.source

    @cached_property
    def _checker(self) -> str:
        """The run that checks the model files: the base config, unless an experiment names others."""
        project = self._project
        return project.run if project.run and _identities(project) != _identities(project.experiment("")) else ""

    def _copying(self) -> Stage:
        """The demo's models."""
        models, settings = self._project.models, self._project.settings
        files = tuple(in_project(path, self._root) for path in models.copied)
        there = all((self._root / file).exists() for file in files)
        is_copied = demo_is_copied(settings.resolve(settings.models.directory))
        found = Found.RIGHT if is_copied else Found.WRONG if there else Found.MISSING
        return Stage(Rule.DEMO_MODELS, files, {"version": DEMO_VERSION}, found)

    def _download(self, role: Role) -> Stage:
        files = self.made(role)
        wanted: JsonObject = {"identity": self._project.models.identity(role)}
        identity = self._project.models.downloaded(role)
        recorded: JsonObject | None = None if identity is None else {"identity": identity}
        return Stage(f"download_{role}", files, wanted, compare(self._root, files, recorded, wanted), recorded)

    def _refuse_other_downloads(self) -> None:
        base = ModelStages(self._project.experiment(""))
        if self._source == "hub" and not {*self.made(*self._roles)} <= {*base.made(*base._roles)}:
            raise UserError(
                f"experiment {self._project.run}: needs other models than the config itself downloads",
                hint="download them in a project of their own, and name their files with models.source: files",
            )

    def _checking(self) -> Stage:
        """The check, whose product is a spec itself that only records what was found good."""
        product = ProjectPaths(run=self._project.run).checked_models
        wanted: JsonObject = {"models": _identities(self._project)}
        try:
            recorded: JsonObject | None = Spec.load(self._root / product).wanted
        except RecordError:
            recorded = None
        found = compare(self._root, [product], recorded, wanted)
        return Stage(Rule.CHECK_MODELS, (product,), wanted, found, recorded, {"models": self.made(*self._roles)})


def _identities(project: Project) -> JsonObject:
    """What the model files of a run are, by role."""
    return {role: project.models.identity(role) for role in project.settings.roles}
