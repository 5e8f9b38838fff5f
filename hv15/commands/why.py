"""`hv15 why`: what would run and why, in words."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from hv15.commands.options.project import Why
from hv15.commands.targets import asked
from hv15.project import Project
from hv15.project.checkpoints import earlier_step
from hv15.records.paths import ProjectPaths, config_file
from hv15.records.reasons import DueStages
from hv15.terminal_text import json_text


def why(options: Why) -> None:
    """Print what would run and why; nothing is started, and nothing that a run reads is written.

    Without a project before it, a word that names a product is the target: `hv15 why results/lora.safetensors`.
    """
    folder, targets = asked(options.project, options.words, options.target, options.experiment, options.overrides)
    project = Project(config_file(folder), options.overrides, experiment=options.experiment)
    due = due_stages(project, targets)
    if options.json:
        print(json_text(due.to_json()))
    else:
        print("\n".join([*in_words(due), *note_on_step(project)]))


def due_stages(project: Project, targets: Sequence[str] = ()) -> DueStages:
    """What has to run for the targets, and why.

    Raises:
        UserError: a target is unknown, or a model, a dataset, an image or a LoRA that the config names cannot be used.
    """
    from hv15.workflow import make_demo_clips, make_planner
    from hv15.workflow.why import Reasons

    project.models.check()
    make_demo_clips(project)
    planner = make_planner(project, targets=tuple(targets))
    planner.refuse_unknown_targets()
    return Reasons(project, planner).due()


def note_on_step(project: Project) -> list[str]:
    """Say which LoRA is published, if it is not that after the last step; no line if it is."""
    train = project.settings.train
    step = earlier_step(train, train.publish_step)
    if step is None:
        return []
    lora, last = ProjectPaths(run=project.run).lora, ["hv15", "pick", "final"]
    last += ["--experiment", project.run] if project.run else []
    return [f"{lora} is the LoRA after step {step:,} (train.publish_step); `{shlex.join(last)}` publishes the last one"]


def in_words(due: DueStages) -> list[str]:
    """A line for each stage, with its reasons below it when there are several."""
    if not due.stages:
        return ["nothing would run: everything is up to date"]
    lines = []
    for stage in due.stages:
        if len(stage.reasons) == 1:
            lines.append(f"{stage.title}: {stage.reasons[0]}")
        else:
            lines += [f"{stage.title}:", *(f"  {reason}" for reason in stage.reasons)]
    return lines
