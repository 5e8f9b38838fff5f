"""File names of the rules, which stand for those of all runs: of the base config, and of its experiments.

A config without experiments has the plain names. With experiments, each begins with the wildcard `{results}`: the
folder of results of a run, `results` or `results/NAME`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.choices import Role
from hv15.config.sample import SAMPLE_NAME
from hv15.project import Project
from hv15.project.products import shown_files
from hv15.records.outputs import ENLARGED_SUFFIX
from hv15.records.paths import RESULTS, EncodedKind, ProjectPaths, average_of, manifest_name
from hv15.records.stage_names import FOLDER, SETTINGS, run_of_folder, run_of_wildcards, stage_of_run
from hv15.workflow.comparing import comparison_files, have_common_samples, is_compared
from hv15.workflow.known_parameters import with_known_parameters

if TYPE_CHECKING:
    from snakemake.io import InputFiles, Wildcards


@dataclass(frozen=True)
class RulePaths(ProjectPaths):
    """Paths with a wildcard instead of the folder of results."""

    @property
    def results(self) -> Path:
        return Path(f"{{{FOLDER}}}")


def stage_of_wildcards(pattern: str, wildcards: Mapping[str, str]) -> str:
    """Return the stage of a job.

    Args:
        pattern: its name within a run, with wildcards in braces: `sample_video.{name}`.
    """
    return stage_of_run(run_of_wildcards(wildcards), pattern.format(**wildcards))


def folder_pattern(experiments: Iterable[str]) -> str:
    """Return a regular expression for the folders of results of the base config and of experiments."""
    names = "|".join(map(re.escape, experiments))
    return f"{RESULTS}(/({names}))?" if names else RESULTS


def run_of_target(target: str, experiments: Mapping[str, object]) -> str:
    """Return the experiment that a target belongs to, a file or the name of a stage; "" for the base config."""
    parts = Path(target).parts
    place = 1 if parts[:1] == (RESULTS,) else 0
    return parts[place] if len(parts) > place + 1 and parts[place] in experiments else ""


END = "|"
"""Ends a format specification, of which Snakemake takes a last `q` or `u` for itself."""


class Formatter:
    """Gives words for what is named as the format specification in a message or command, such as `{WHY:train|}`."""

    def __init__(self, words: Callable[[str], str]) -> None:
        self._words = words

    def __format__(self, specification: str) -> str:
        return self._words(specification.removesuffix(END))


RUN = Formatter(lambda folder: f"{run}: " if (run := run_of_folder(folder)) else "")
"""In a message, what stands before it if the job is for an experiment: `{RUN:results/small|}` is `small: `."""
OF = Formatter(lambda folder: f" --experiment {run}" if (run := run_of_folder(folder)) else "")
"""In a command, the option that names the experiment, if the job is for one."""


@dataclass(frozen=True)
class RunsOfRule:
    """Runs whose jobs of the same kind make the same kinds of files, so that they have rules of their own."""

    runs: tuple[str, ...]
    number: int
    """Of the group, from 0."""
    has_average: bool

    def rule(self, name: str) -> str:
        """Return the name of their rule."""
        return f"{name}_{self.number + 1}" if self.number else name

    def files(self, lora: Path) -> dict[str, str]:
        """Return a LoRA's file, and that of its moving average if there is one, by the outputs' names."""
        return {"lora": str(lora), **({"average": str(average_of(lora))} if self.has_average else {})}

    @property
    def folders(self) -> str:
        """Matches their folders of results."""
        return "|".join(re.escape(str(ProjectPaths(run=run).results)) for run in self.runs)


class RuleNames:
    """The names that the rules of a project take from it; paths are relative to its folder, as Snakemake wants."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.has_experiments = bool(project.experiments)
        self.paths = RulePaths() if self.has_experiments else ProjectPaths()
        """What the rules make, with wildcards: of the base config, and of experiments if there are any."""
        self.shared = ProjectPaths()
        """What is made once for all."""

    @property
    def everything(self) -> list[str]:
        """What is made unless something else is asked for: the LoRA, with all that belongs to it, and its model card,
        or the samples; and the page that shows it."""
        card = [str(self.shared.card)] if self.project.settings.datasets else []
        return [*everything(self.project), str(self.shared.report), *card]

    def all_experiments(self, wildcards: Wildcards) -> list[str]:
        """What `snakemake experiments` makes: of each experiment the LoRA, or the samples if it has no dataset, and
        what compares them."""
        files = [file for name in self.project.experiments for file in everything(self.project.experiment(name))]
        return [*files, *([str(self.shared.comparison().page)] if self.compares else [])]

    @property
    def compares(self) -> bool:
        """Whether there are experiments to compare."""
        return is_compared(self.project.experiments)

    @property
    def comparison(self) -> list[str]:
        """The files that compare the experiments, the page first."""
        has_samples = have_common_samples(self.project, self.project.experiments)
        return [*map(str, comparison_files(self.shared.comparison(), has_samples=has_samples))]

    @property
    def samples(self) -> list[str]:
        """The files of all samples that people look at."""
        project = self.project
        return [*map(str, shown_files(project.settings, project.samples, project.enlarged, self.shared))]

    def message(self, words: str, stage: str) -> str:
        """The message of a rule: what it does and why, after the experiment if it is for one."""
        named = stage.replace("{", "{wildcards.")
        if not self.has_experiments:
            return f"{words}: {{WHY:{named}{END}}}"
        folder = f"{{wildcards.{FOLDER}}}"
        return f"{{RUN:{folder}{END}}}{words}: {{WHY:{folder}:{named}{END}}}"

    def labels(self, **labels: str) -> dict[str, str] | None:
        """The labels of a result in Snakemake's own report: with experiments, also of which it is; None for none."""
        return (labels | {"results": f"{{{FOLDER}}}"} if self.has_experiments else labels) or None

    @property
    def experiment_option(self) -> str:
        """In the command of a rule, the option that names the experiment, if it is for one."""
        return f"{{OF:{{wildcards.{FOLDER}}}{END}}}" if self.has_experiments else ""

    def options_of(self, *names: str) -> Callable[[Wildcards, InputFiles], list[str]]:
        """The options of a command for inputs that it may have: `--lora FILE`."""

        def options(wildcards: Wildcards, input: InputFiles) -> list[str]:
            return [word for name in names for file in input.get(name, []) for word in (f"--{name}", str(file))]

        return with_known_parameters(options)

    @property
    def averaged(self) -> list[RunsOfRule]:
        """The runs whose trainings make a moving average beside the LoRA, and those that do not, apart."""
        with_average: dict[bool, list[str]] = {}
        for name in ("", *self.project.experiments):
            with_average.setdefault(self._has_average(name), []).append(name)
        return [RunsOfRule(tuple(runs), number, average) for number, (average, runs) in enumerate(with_average.items())]

    def _has_average(self, experiment: str) -> bool:
        """Whether a run has a moving average, as far as that can be said before its settings are checked."""
        base = self.project.settings.train.ema_decay
        changes = self.project.experiments[experiment].values if experiment else {}
        return bool(changes.get("train.ema_decay", base))

    @property
    def output_name(self) -> str:
        """Beginning of the names of the LoRA's copies for other programs."""
        return self.project.settings.convert.output_name

    @property
    def source(self) -> str:
        """Where the models come from: files, demo, hub."""
        return self.project.settings.models.source

    def model_files(self, *roles: Role) -> list[str]:
        """The model files that the workflow itself makes or downloads."""
        return [str(relative(path)) for role in roles for path in self.project.models.made(role)]

    @property
    def demo_files(self) -> list[str]:
        """The files of the demo's models."""
        return [str(relative(path)) for path in self.project.models.copied]

    @property
    def downloads(self) -> dict[Role, list[str]]:
        """Role -> the files that are fetched from the Hub."""
        roles = self.project.settings.roles if self.source == "hub" else ()
        return {role: self.model_files(role) for role in roles}

    def manifest(self, kind: EncodedKind) -> str:
        """The manifest of a shard, with the wildcard `shard`."""
        shards = self.project.settings.cache.shards
        if self.has_experiments:
            return str(self.paths.manifests(kind) / f"{{{SETTINGS}}}" / manifest_name("{shard}", shards))
        encoding = next(each for each in self.project.encodings if each.kind == kind)
        return str(relative(encoding.folder / manifest_name("{shard}", shards)))

    def encoding_job(self, stage: str) -> str:
        """The name of an encoding job's log: with experiments, it has all wildcards of the manifest."""
        return f"{stage}.{{{SETTINGS}}}" if self.has_experiments else stage

    @property
    def folder_pattern(self) -> str:
        """Matches the folders of results of the config and its experiments."""
        return folder_pattern(self.project.experiments)

    @property
    def sample_pattern(self) -> str:
        """Matches the names of this project's samples and previews alone; with experiments, any such name."""
        if self.has_experiments:
            return SAMPLE_NAME
        return any_of([*self.project.samples, *(each.name for each in self.project.previews)])

    @property
    def condition_pattern(self) -> str:
        """Matches the names of all that may have a first image: those, and what super resolution makes of them."""
        if self.has_experiments:
            return f"{SAMPLE_NAME}({re.escape(ENLARGED_SUFFIX)})?"
        return f"{self.sample_pattern}|{any_of([spec.name for spec in self.project.enlarged.values()])}"


def everything(project: Project) -> list[str]:
    """Return what is made of a config or of an experiment: the LoRA, with all that belongs to it, or the samples."""
    paths = ProjectPaths(run=project.run)
    if project.settings.datasets:
        return [str(paths.lora)]
    return [*map(str, shown_files(project.settings, project.samples, project.enlarged, paths))]


def any_of(names: Iterable[str]) -> str:
    """Return a regular expression that matches these names and nothing else."""
    return "|".join(map(re.escape, dict.fromkeys(names))) or "(?!)"


def relative(path: Path) -> Path:
    """Return a path as the rules name it: from the working directory where that is possible."""
    found = os.path.relpath(path)
    return path if found.startswith("..") else Path(found)
