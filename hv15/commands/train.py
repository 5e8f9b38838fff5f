"""`hv15 train`."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.cache.encoding import describe
from hv15.commands.logs import log_to_stderr
from hv15.commands.notes import log_notes, training_notes
from hv15.commands.options.stages import Train
from hv15.commands.twin_copies import copy_twin
from hv15.digest import digest
from hv15.errors import UserError
from hv15.gpus import take_gpu
from hv15.project import Project
from hv15.ranks import is_first_rank, is_rank, run_on_ranks
from hv15.records.paths import ProjectPaths
from hv15.records.spec import Spec
from hv15.sample.plan import PREVIEW_SUFFIX
from hv15.train.past import past_of
from hv15.train.shared_folder import share_training

if TYPE_CHECKING:
    from hv15.train.previews import PreviewPlan

log = logging.getLogger(__name__)


def train(options: Train) -> int | None:
    """Train the LoRA of a project from its encoded dataset; return an exit code if other processes did it.

    Raises:
        UserError: the dataset or the config changed meanwhile, or the training cannot continue.
    """
    project = Project(options.config, options.overrides, experiment=options.experiment)
    log_to_stderr(project.settings.runtime.log_level)
    if not is_rank() and options.spec is not None and (twin := copy_twin(options.spec, options.out)):
        owner = digest(past_of(project.settings.train, Spec.read(options.spec).wanted))
        name = project.paths.training.name
        share_training(twin.parent / name, options.out.parent / name, owner)
        return None
    device = project.settings.runtime.device
    train_settings = project.settings.train
    asked, machines = train_settings.asks_for_gpus, train_settings.num_machines
    if (code := run_on_ranks(train_settings.gpus, device, asked, machines=machines)) is not None:
        return code
    spec = project.training_spec
    if options.spec is not None and Spec.read(options.spec).wanted != spec:
        raise UserError.at(
            options.spec,
            "the dataset or the config changed while the workflow was running",
            hint="run the same command again: what is encoded already is kept",
        )
    take_gpu(device)
    from hv15.cache.batches import Stores
    from hv15.cache.scratch import copied
    from hv15.train.run import train

    items = project.training_items()
    files = (project.latents, project.masks)
    left_out = sum(bool(entry.skipped) for each in files for _, entry in describe(each.entries()))
    if left_out and is_first_rank():
        print(f"{left_out} files were left out: `hv15 report` says why", file=sys.stderr)
    log_notes(log, project, training_notes(project, items))
    stores = Stores(project.latents.store, project.texts.store, project.masks.store)
    stores = copied(stores, project.settings.cache.scratch, project.settings.resolve)
    previews = preview_plan(project)
    train(
        project.settings,
        spec,
        items,
        stores,
        options.out,
        dit_path=project.models.path("dit"),
        held_out=project.validation_items(),
        previews=previews,
        until=options.until,
    )
    project.dataset.record().write(
        options.out.parent / project.paths.training.name / project.paths.trained_dataset.name
    )
    if is_first_rank():
        _draw_curves(options.out.parent / project.paths.training.name)
    return None


def _draw_curves(folder: Path) -> None:
    """Draw the training's records. The LoRA is written already, so a problem here does not matter to it."""
    from hv15.train.curves import draw_curves

    paths = ProjectPaths()
    try:
        draw_curves(folder / paths.metrics.name, folder / paths.curves.name)
    except (OSError, UserError) as error:
        log.warning("the curves are not drawn: %s", error)


def preview_plan(project: Project) -> PreviewPlan | None:
    """Return what a project's training can sample; None if there are no prompts.

    Raises:
        UserError: a model, an image or a LoRA of a sample is missing.
    """
    from hv15.train.previews import Preview, PreviewPlan

    previews = [
        Preview(
            spec.name.removesuffix(PREVIEW_SUFFIX), spec, project.paths.condition(spec.name) if spec.image else None
        )
        for spec in project.previews
    ]
    if not previews:
        return None
    return PreviewPlan(
        previews,
        trained=digest(project.training_spec),
        text=project.texts.settings_digest,
        root=project.root,
        vae=project.models.path("vae"),
        patch_conv=project.settings.sample.vae_enable_patch_conv,
    )
