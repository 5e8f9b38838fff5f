"""`hv15 pick` and, of the workflow, `hv15 stage lora`: the LoRA after a step."""

from __future__ import annotations

import json
from pathlib import Path

from hv15.commands.options.runs import Pick, Run
from hv15.commands.options.stages import StepLoRA
from hv15.config.config_text import read_config_text, write_config_text
from hv15.config.yaml_edit import remove_value, set_value, values
from hv15.errors import UserError
from hv15.project import Project
from hv15.project.checkpoints import STEP, earlier_step, keep_checkpoint, not_kept, step_of, will_be_kept
from hv15.project.products import lora_files
from hv15.records.json_values import JsonObject, as_object
from hv15.records.paths import copy_of_step
from hv15.records.spec import Spec
from hv15.terminal_text import one_line
from hv15.train.origin import link_file
from hv15.train.past import past_of

SECTION, SETTING = "train", "publish_step"
FINAL, BEST = "final", "best"


def pick(options: Pick) -> int:
    """Write into the config which step is published, and start a run, which publishes it.

    Raises:
        UserError: nothing is kept of that step, a run is in progress, or the config cannot be edited.
    """
    from hv15.commands.runs import run

    said = choose(options.config, options.step, options.experiment)
    print(one_line(f"{options.config}: {options.experiment}{': ' if options.experiment else ''}{said}"))
    if options.no_run:
        return 0
    return run(Run(project=options.project, experiment=options.experiment, follow=options.follow))


def choose(config: Path, word: str, experiment: str = "") -> str:
    """Write into a config which step is published, and say so in words.

    Args:
        word: the number of a step, `BEST` or `FINAL`.
        experiment: of which one; "": of the config itself.

    Raises:
        UserError: as `pick`.
    """
    from hv15.runs.control import refuse_living_run

    project = Project(config, experiment=experiment)
    refuse_living_run(project.root)
    step = chosen_step(project, word)
    if experiment and step != earlier_step(project.settings.train, project.settings.train.publish_step):
        _refuse_swept(project, step)
    if step is not None and step in project.kept:
        _secure(project, project.kept[step], step)
    before = read_config_text(config)
    after = with_step(before, step, experiment)
    if after != before:
        write_config_text(config, after)
    which = "the last step" if step is None else f"step {step:,}"
    return f"the LoRA after {which} is {'now' if after != before else 'already'} the one to publish"


def chosen_step(project: Project, word: str) -> int | None:
    """Return the step that a person names; None: the last one.

    Raises:
        UserError: it is no step, or one of which nothing is kept.
    """
    train, spec, paths = project.settings.train, project.training_spec, project.paths
    if word == FINAL:
        return None
    if word == BEST:
        best = step_of(paths.best, train, past_of(train, spec))
        if best is None:
            raise UserError.at(
                paths.best,
                "this training has kept no LoRA with the lowest validation loss",
                hint="set train.validation and its keep_best before a training; `hv15 pick STEP` takes any kept step",
            )
        if not best:
            raise UserError.at(
                paths.best,
                "the validation loss was lowest before the first step: every step made it worse",
                hint="a lower learning_rate may help; `hv15 pick STEP` takes any kept step",
            )
        return earlier_step(train, best)
    if not word.isdecimal() or not int(word):
        raise UserError(f"found '{word}', expected the number of a step, {BEST} or {FINAL}", hint="such as 1500")
    step = int(word)
    if step in project.kept:
        return None if project.kept[step] == paths.trained else earlier_step(train, step)
    if not will_be_kept(train, spec, paths, step):
        raise not_kept(step, project.kept)
    return earlier_step(train, step)


def with_step(text: str, step: int | None, experiment: str = "") -> str:
    """Return the text of a config that publishes the LoRA after a step; None: after the last one.

    Args:
        experiment: one that `experiments` names; "": the config itself.

    Raises:
        UserError: it cannot be done without touching more than this setting.
    """
    if experiment:
        return _with_step_of(text, step, experiment)
    if step is not None:
        return set_value(text, (SECTION, SETTING), step)
    train = values(text).data.get(SECTION)
    is_set = isinstance(train, dict) and SETTING in train
    return remove_value(text, (SECTION, SETTING)) if is_set else text


def _with_step_of(text: str, step: int | None, experiment: str) -> str:
    """The same of an experiment. If the config itself publishes a step, the last one is `null` in the experiment."""
    config = values(text).data
    own = as_object(as_object(config.get("experiments")).get(experiment) or {})
    section, dotted_name = own.get(SECTION), f"{SECTION}.{SETTING}"
    is_inside = isinstance(section, dict) and (SETTING in section or dotted_name not in own)
    place = ("experiments", experiment, *((SECTION, SETTING) if is_inside else (dotted_name,)))
    if step is not None or SETTING in as_object(config.get(SECTION) or {}):
        return set_value(text, place, step)
    is_set = dotted_name in own or (isinstance(section, dict) and SETTING in section)
    return remove_value(text, place) if is_set else text


def _refuse_swept(project: Project, step: int | None) -> None:
    """Raise a UserError if an experiment is one of a sweep, whose settings are written for several at once."""
    experiment = project.experiments[project.run]
    if experiment.place[0] == "experiments":
        return
    own: JsonObject = {**experiment.values, f"{SECTION}.{SETTING}": step}
    written = f"{project.run}-picked: {json.dumps(own, ensure_ascii=False)}"
    raise UserError(
        f"{project.run} is made by the sweep, in which no single one can have a step of its own",
        hint=f"add it to `experiments`, where it takes over this training: {written}",
    )


def _secure(project: Project, kept: Path, step: int) -> None:
    """Give a training's copy of a step the name under which a training that goes on leaves it alone."""
    if kept.parent.name != project.paths.checkpoints.name:
        return
    train = project.settings.train
    names = lora_files(train, kept.with_name(copy_of_step(step)))
    for file, name in zip(lora_files(train, kept), names, strict=True):
        if not name.exists():
            link_file(file, name)


def keep(options: StepLoRA) -> None:
    """Write the LoRA after a step as it is published.

    Raises:
        UserError: nothing is kept of the step, or the config changed meanwhile; or as `keep_checkpoint`.
    """
    project = Project(options.config, options.overrides, experiment=options.experiment)
    wanted = Spec.read(options.spec).wanted
    step = wanted.get(STEP)
    if not isinstance(step, int) or project.spec_after(step) != wanted:
        raise UserError.at(
            options.spec,
            "the dataset or the config changed while the workflow was running",
            hint="run the same command again",
        )
    if step not in project.kept:
        raise not_kept(step, project.kept)
    keep_checkpoint(project.kept[step], options.out, wanted, project.settings.train)
