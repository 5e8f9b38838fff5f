"""`hv15 publish`: what would be uploaded, and the upload."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from hv15.commands.options.project import Publish
from hv15.errors import UserError
from hv15.pages.markdown import without_made_from
from hv15.project import Project
from hv15.project.products import gallery_files
from hv15.records.metadata import CONFIG
from hv15.records.paths import ProjectPaths
from hv15.terminal_text import one_line
from hv15.units import size

CARD = ProjectPaths().card.name


def publish(options: Publish) -> None:
    """Say what would be uploaded, or upload it.

    Raises:
        UserError: the results are not up to date, there is nothing to upload, or the upload fails.
    """
    from hv15.report.card import REPOSITORY
    from hv15.report.hub import address, check_repository, upload

    check_repository(options.repo)
    project = Project(options.config, options.overrides, experiment=options.experiment)
    _refuse_unfinished(project)
    files: dict[str, Path | bytes] = {
        CARD: without_made_from(project.paths.card.read_text(encoding="utf-8"))
        .replace(REPOSITORY, options.repo)
        .encode()
    }
    files |= {file.name: file for file in _copies(project)}
    with TemporaryDirectory(prefix="hv15-publish-") as folder:
        files |= _bare_samples(project, Path(folder))
        _say(f"{'private ' if options.private else ''}repository {address(options.repo)}:")
        for name, content in files.items():
            count = len(content) if isinstance(content, bytes) else content.stat().st_size
            _say(f"  {name:40} {size(count):>10}")
        for note in _notes(project):
            _say(f"note: {note}")
        if not options.upload:
            card = files[CARD]
            print(card.decode() if isinstance(card, bytes) else "", end="")
            _say("nothing was uploaded: add --upload to do it")
            return
        print(upload(options.repo, files, private=options.private, message=options.message))


def _say(line: str) -> None:
    print(one_line(line), file=sys.stderr)


def _refuse_unfinished(project: Project) -> None:
    """Check that the LoRA, its copies and the card are what the config asks for.

    Raises:
        UserError: they are not, or there are no copies.
    """
    from hv15.workflow import make_planner

    where = project.config
    if not project.settings.datasets:
        raise UserError.at(where, "trains no LoRA, so there is nothing to publish", hint="publish from another project")
    if not project.settings.convert.formats:
        hint = "set convert.formats: [comfyui, diffusers], and run it"
        raise UserError.at(where, "convert.formats is empty: there is no file for other programs to publish", hint=hint)
    card = str(ProjectPaths(run=project.paths.run).card)
    if due := make_planner(project, targets=(card,)).running:
        raise UserError.at(
            where,
            f"{len(due)} results are missing or not up to date, first {due[0]}",
            hint=f"run `hv15 run {project.root} --target {card}` first; `hv15 why` says why",
        )


def _copies(project: Project) -> list[Path]:
    convert = project.settings.convert
    return [project.paths.converted(layout, convert.output_name) for layout in convert.formats]


def _bare_samples(project: Project, folder: Path) -> Mapping[str, Path]:
    """Copies of the samples that are shown, which tell nothing, by their names in the repository."""
    from hv15.data.bare import write_bare_copy

    made = {}
    for number, file in enumerate(gallery_files(project.settings, project.samples, project.paths).values()):
        bare = folder / f"{number}{file.suffix}"
        write_bare_copy(file, bare)
        made[file.relative_to(project.paths.results).as_posix()] = bare
    return made


def _notes(project: Project) -> list[str]:
    """What a person should know before the upload."""
    from hv15.models.weights.header import read_header

    notes = []
    if telling := [file.name for file in _copies(project) if CONFIG in read_header(file).metadata]:
        notes.append(f"{', '.join(telling)}: tells the whole config, prompts and paths too (convert.metadata: full)")
    prompts, shown = project.settings.sample.prompts, set(project.settings.convert.gallery)
    hidden = [prompt.name for prompt in prompts if prompt.name not in shown]
    if hidden:
        notes.append(f"{len(hidden)} of {len(prompts)} prompts stay private, with their samples (convert.gallery)")
    if not project.settings.convert.license:
        notes.append("no licence is told (convert.license)")
    return notes
