"""`hv15 reproduce`: train a LoRA again from what its file tells, and say whether it is the same.

It is a project's reproduction in `results/reproduced/<digest of the file>`, with its relative paths, its models and its
store. The stages are processes of their own, as in the workflow. A stopped one goes on with the next call.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hv15.atomic import write_text
from hv15.choices import roles_of
from hv15.commands.options.project import Reproduce
from hv15.commands.provenance import as_yaml
from hv15.digest import file_sha256
from hv15.environment import CONFIG_VARIABLE, OVERRIDES_VARIABLE
from hv15.errors import UserError
from hv15.project import Project
from hv15.project.checkpoints import keep_checkpoint, kept_checkpoints
from hv15.project.metadata import product_made_from, read_metadata
from hv15.project.remote import fetch_missing
from hv15.records.json_values import JsonObject
from hv15.records.metadata import STEPS
from hv15.records.paths import CONFIG, ProjectPaths, average_of, copy_of_step, project_of
from hv15.records.problems import ConfigError, dotted
from hv15.records.reproduction import Reproduction, Verdict
from hv15.records.rules import Rule
from hv15.records.spec import Spec
from hv15.records.trained_dataset import TrainedDataset
from hv15.records.training import state_folders, step_of
from hv15.terminal_text import one_line
from hv15.train.origin import ENTRY, find_origin
from hv15.train.signals import EXIT_RESUMABLE
from hv15.workflow import make_demo_clips
from hv15.workflow.locking import programs
from hv15.workflow.reproduction import (
    FileDifference,
    file_difference,
    first_other_step,
    input_changes,
    lock_changes_of,
    metrics_of,
    recorded_dataset,
    refuse_missing_clips,
    refuse_missing_start,
    those_of,
)
from hv15.workflow.told_trainings import ToldLoRA, ToldTraining, told_lora


def reproduce(options: Reproduce) -> int:
    """Make a LoRA again and say how it compares; return 0 if its weights are the same.

    Raises:
        UserError: the LoRA does not tell how it was trained; clips, models or files are missing.
    """
    told = told_lora(options.lora)
    root = options.project if options.project is not None else project_of_lora(options.lora)
    if not root.is_dir():
        raise UserError.at(root, "is not a folder", hint="name the project's folder with --project")
    work = ProjectPaths(root.absolute()).reproduction(told.name)
    record = Reproduction(str(told.path), told.sha256, "other inputs", len(told.trainings), told.steps)
    changes = list[str]()
    for number, training in enumerate(told.trainings, start=1):
        of = f"training {number} of {len(told.trainings)}: " if len(told.trainings) > 1 else ""
        changes += [of + words for words in _input_changes(told, training, work)]
    if changes and not options.anyway:
        return _conclude(record, work, changes)
    for number, training in enumerate(told.trainings, start=1):
        project = _open(told, training, work)
        following = told.trainings[number : number + 1]
        if following and _holds_start_of(following[0], project):
            continue
        print(f"training {number} of {len(told.trainings)}: {training.last:,} steps", file=sys.stderr, flush=True)
        if code := _train(told, training, project):
            return code
        if following and not _holds_start_of(following[0], project):
            changes += [f"training {number}: {words}" for words in _step_changes(training, project, told.path)]
            changes.append(f"training {number} did not give what training {number + 1} started from")
            return _conclude(replace(record, verdict="different"), work, changes)
    return _compare(told, project, record, changes)


def project_of_lora(lora: Path) -> Path:
    """Return the project in whose folder a LoRA is, or else the working directory."""
    found = next((folder for folder in lora.absolute().parents if (folder / CONFIG).is_file()), None)
    return Path() if found is None else project_of(found / CONFIG).root


# -- before ---------------------------------------------------------------------------------------------------------


def _input_changes(told: ToldLoRA, training: ToldTraining, work: ProjectPaths) -> list[str]:
    """What differs in what a training would be made from.

    Raises:
        UserError: clips, models or files are missing.
    """
    config, text = work.reproduced_config, as_yaml(training.config)
    with _config_of(told.path, work.root):
        present = Project(work.config, text=text)  # with the project's own paths: nothing is left out of its datasets
    fetch_missing(present)
    make_demo_clips(present)
    with _config_of(told.path, work.root):
        present.models.check()
        present.dataset.refuse_unusable()
    recorded = recorded_dataset(training, told.path, work.root)
    if recorded is not None:
        refuse_missing_clips(recorded, present, told.path)
    _write_dataset(recorded, present, work)
    project = Project(config, text=text)
    if training is told.trainings[0] and training.origin is not None:
        refuse_missing_start(training.origin, project, told.path)
    found = input_changes(training, project, recorded, present)
    project.save_caches()
    return found


@contextmanager
def _config_of(lora: Path, root: Path) -> Iterator[None]:
    """Say that a problem is in the config of a LoRA: its words are of the project's config.yaml, which is not read."""
    try:
        yield
    except UserError as error:
        found = error.problems if isinstance(error, ConfigError) else ()
        raise UserError.at(
            lora,
            "the config that it tells cannot be followed here:",
            lines=[f"{dotted(each.place.setting)}: {each.message}" for each in found] or error.message.splitlines(),
            hint=f"`hv15 show {lora} --config` shows it; its relative paths start at {root} (--project)",
        ) from error


def _write_dataset(recorded: TrainedDataset | None, present: Project, work: ProjectPaths) -> None:
    """Leave a list of the clips of a training where `Project` finds it, so that what was added later is left out."""
    if recorded is None:
        work.reproduced_dataset.unlink(missing_ok=True)
    else:
        those_of(recorded, present).write(work.reproduced_dataset)


def _open(told: ToldLoRA, training: ToldTraining, work: ProjectPaths) -> Project:
    """Write all that the stages read of a training, and open it."""
    text = as_yaml(training.config)
    write_text(work.reproduced_config, text)
    recorded = recorded_dataset(training, told.path, work.root)
    _write_dataset(recorded, Project(work.config, text=text), work)
    if training.origin is not None:  # so that its start is found again by what the LoRA tells of it
        train = training.config.get("train")
        name = train.get(ENTRY) if isinstance(train, dict) else None
        Spec(training.made_from, {ENTRY: name}).write(work.spec(Rule.TRAIN))
    else:
        work.spec(Rule.TRAIN).unlink(missing_ok=True)
    return Project(work.reproduced_config)


# -- training -------------------------------------------------------------------------------------------------------


def _holds_start_of(following: ToldTraining, project: Project) -> bool:
    """Whether what the next training started from is there, made again."""
    return following.origin is not None and find_origin(following.origin, project.paths.training) is not None


def _train(told: ToldLoRA, training: ToldTraining, project: Project) -> int:
    """Train once more what is not yet, stage by stage, and return the exit code of the first that failed."""
    until = _stop_after(told, training, project)
    if _made(told, project) is not None if training is told.trainings[-1] else _has_state(project, until):
        return 0
    stages = [*_model_stages(project), *_encoding_stages(project)]
    stop = [] if until is None else ["--until", str(until)]
    stages.append(["train", "--out", str(project.paths.trained), *stop])
    for words in stages:
        code = run_stage(words, project.paths.reproduced_config)
        if code == EXIT_RESUMABLE and words[0] == "train" and _has_state(project, until):
            return 0
        if code:
            return code
    return 0


def _has_state(project: Project, step: int | None) -> bool:
    """Whether a training has saved its state after a step."""
    return step is not None and any(step_of(state) == step for state in state_folders(project.paths.states))


def _model_stages(project: Project) -> list[list[str]]:
    """The commands that make or fetch the models that are missing."""
    source = project.settings.models.source
    made = [path for role in roles_of(project.settings.task) for path in project.models.made(role)]
    if all(path.exists() for path in made):
        return []
    return [["demo", "models"] if source == "demo" else ["download"]]


def _encoding_stages(project: Project) -> list[list[str]]:
    """The commands that list what is encoded, and encode what the store does not have."""
    names = {"latents": "latents", "text": "texts", "masks": "masks"}
    due = [each for each in project.encodings if not all(map(each.is_complete, range(each.shards)))]
    return [["encode", names[each.kind]] for each in due]


def _stop_after(told: ToldLoRA, training: ToldTraining, project: Project) -> int | None:
    """The step after which the training need not go on; None: it is trained to its end."""
    if training.stop_after is not None or training is not told.trainings[-1]:
        return training.stop_after
    length = project.settings.train.max_train_steps
    step = told.step or training.last
    return step + 1 if length is not None and step + 1 < length else None  # the copy is written when the step begins


def run_stage(words: Sequence[str], config: Path) -> int:
    """Run one command of hv15 on a config as a process of its own, and return its exit code."""
    from hv15.ranks import run_here

    variables = {name: value for name, value in os.environ.items() if name != OVERRIDES_VARIABLE}
    command = [sys.executable, "-P", "-m", "hv15.cli", *words]
    return run_here(command, {**variables, CONFIG_VARIABLE: str(config)})


# -- after ----------------------------------------------------------------------------------------------------------


def _made(told: ToldLoRA, project: Project) -> Path | None:
    """Return the file of the last training that is the LoRA made again; None if it is not there yet.

    It is what the training ended in, or the copy of one of its steps, or that as it is published.
    """
    paths, train, last = project.paths, project.settings.train, told.trainings[-1].last
    if told.step is not None:
        kept = kept_checkpoints(train, project.training_spec, paths)
        if told.step not in kept:
            return None
        lora = paths.checkpoint_lora(told.step)
        if kept[told.step] != lora:
            keep_checkpoint(kept[told.step], lora, project.spec_after(told.step), train)
    elif _is_made(paths.trained, project.training_spec, last):
        lora = paths.trained
    else:
        lora = paths.checkpoints / copy_of_step(last)
        if not _is_made(lora, project.training_spec, last):
            return None
    return average_of(lora) if told.is_average else lora


def _is_made(lora: Path, spec: JsonObject, steps: int) -> bool:
    return product_made_from(lora) == spec and read_metadata(lora).get(STEPS) == str(steps)


def _compare(told: ToldLoRA, project: Project, base: Reproduction, changes: list[str]) -> int:
    """Compare the LoRA with the one that was made again, and record it."""
    made = _made(told, project)
    if made is None or not made.exists():
        raise UserError.at(
            project.paths.training,
            f"the training left no LoRA of step {told.trainings[-1].last:,}",
            hint="remove the folder, then run the same command again",
        )
    found = file_difference(told.path, made)
    verdict: Verdict = "identical" if found.is_identical else "different" if found.weights else "same weights"
    record = replace(base, verdict=verdict, made=str(made.relative_to(project.root)), made_sha256=file_sha256(made))
    return _conclude(record, project.paths, [*changes, *_differences(told, project, found)])


def _differences(told: ToldLoRA, project: Project, found: FileDifference) -> list[str]:
    """What differs between the two files: programs, the first step, the first tensor; none if they are identical."""
    if found.is_identical:
        return []
    if not found.weights:
        return [*found.told]
    steps = _step_changes(told.trainings[-1], project, told.path)
    return [*found.told, *lock_changes_of(told, project.root), *steps, *found.weights]


def _step_changes(training: ToldTraining, project: Project, lora: Path) -> list[str]:
    former = metrics_of(training, project, lora)
    words = "" if former is None else first_other_step(former, project.paths.metrics)
    return [words] if words else []


def _conclude(record: Reproduction, work: ProjectPaths, differences: Sequence[str]) -> int:
    """Write the record and say what is in it."""
    record = replace(record, differences=tuple(dict.fromkeys(differences)), programs=programs())
    record.write(work.reproduction_record)
    print("\n".join(map(one_line, in_words(record))))
    return 0 if record.is_same else 1


def in_words(record: Reproduction) -> list[str]:
    """Say whether a LoRA is the same, and where it differs first."""
    trainings = "one training" if record.trainings == 1 else f"{record.trainings} trainings"
    again = f"{trainings} of {record.steps:,} steps again"
    match record.verdict:
        case "identical":
            return [f"{record.lora}: identical: {again} gave every byte of it"]
        case "same weights":
            words = f"{again} gave the same weights, to the bit; what the file tells beside them differs:"
        case "different":
            words = f"{again} gave another LoRA; it differs first in:"
        case "other inputs":
            words = "it cannot become the same, so it was not trained again (--anyway does it); it differs first in:"
    return [f"{record.lora}: {words}", *(f"  {each}" for each in record.differences)]
