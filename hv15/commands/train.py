"""`hv15 spec train` and `hv15 train`."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from hv15.atomic import write_json
from hv15.commands.logs import log_to_stderr
from hv15.commands.notes import log_notes, training_notes
from hv15.commands.options.stages import SpecTrain, Train
from hv15.errors import UserError
from hv15.project import Project

log = logging.getLogger(__name__)


def write_spec(options: SpecTrain) -> None:
    """Write what the training depends on."""
    project = Project(options.config, options.overrides)
    write_json(options.out, {**project.train_spec, "attempt": options.attempt})


def _read_spec(path: Path) -> dict[str, Any]:
    """What `hv15 spec train` wrote, without the attempt, which counts for the workflow alone."""
    try:
        content = dict(json.loads(path.read_text(encoding="utf-8")))
        content.pop("attempt", None)
        return content
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{path}: not readable as a training spec: {error}", hint="`hv15 spec train` writes it, as snakemake does"
        ) from error


def train(options: Train) -> None:
    """Train the LoRA of a project from its encoded dataset."""
    project = Project(options.config, options.overrides)
    log_to_stderr(project.settings.runtime.log_level)
    spec = project.train_spec
    if options.spec is not None and _read_spec(options.spec) != spec:
        raise UserError(
            f"{options.spec}: the dataset or the config changed while the workflow was running",
            hint="run the same command again: what is encoded already is kept",
        )
    from hv15.cache.batches import Stores
    from hv15.train.run import train

    items = project.training_items()
    log_notes(log, project, training_notes(project, items))
    stores = Stores(project.latents.store, project.texts.store)
    train(project.settings, spec, items, stores, options.out, dit_path=project.models.path("dit"))
