"""Where the files of a project are: the one place that knows their names.

The rules, the commands and the dashboard take every path from here. With the project's folder as `root` the paths lead
there from anywhere; with the default, they are relative to the project folder, as Snakemake names them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

EncodedKind = Literal["latents", "text"]
"""The two kinds of encoded items: clips, and captions or prompts."""

RESULTS = "results"
CONFIG = "config.yaml"


def config_file(project: Path) -> Path:
    """The config file of a project that is given as its folder or as the file."""
    return project / CONFIG if project.is_dir() else project


@dataclass(frozen=True)
class ProjectPaths:
    """The files of one project, or of one of its experiments."""

    root: Path = Path()
    """The project folder."""
    run: str = ""
    """The experiment's name; "" for the base config."""

    @property
    def config(self) -> Path:
        return self.root / CONFIG

    @property
    def results(self) -> Path:
        """The folder of everything that is made."""
        return self.root / RESULTS / self.run

    # -- what a person looks for ------------------------------------------------------------------------------------

    @property
    def lora(self) -> Path:
        """The published LoRA: there when everything that belongs to it is."""
        return self.results / "lora.safetensors"

    def converted(self, layout: str) -> Path:
        """The LoRA in the names of another program; `layout` may be a wildcard in braces."""
        return self.results / f"lora.{layout}.safetensors"

    @property
    def samples(self) -> Path:
        return self.results / "samples"

    def condition(self, name: str) -> Path:
        """The encoded first image of an i2v sample; `name` may be a wildcard in braces."""
        return self.samples / f"{name}.condition.safetensors"

    @property
    def contact_sheet(self) -> Path:
        return self.samples / "contact_sheet.png"

    @property
    def plan(self) -> Path:
        """Memory and time of each stage, in words."""
        return self.results / "plan.txt"

    @property
    def checked_models(self) -> Path:
        """What the check of the model files said."""
        return self.results / "models.json"

    # -- training ---------------------------------------------------------------------------------------------------

    @property
    def trained(self) -> Path:
        """The LoRA straight from training, which samples and conversions are made from."""
        return self.results / "train.safetensors"

    @property
    def training(self) -> Path:
        """The folder of one training: its states, metrics, checkpoints and summary."""
        return self.results / "train"

    @property
    def metrics(self) -> Path:
        return self.training / "metrics.jsonl"

    @property
    def states(self) -> Path:
        return self.training / "state"

    @property
    def checkpoints(self) -> Path:
        return self.training / "checkpoints"

    @property
    def previews(self) -> Path:
        """The folder of samples that are made on the way."""
        return self.training / "previews"

    @property
    def summary(self) -> Path:
        return self.training / "summary.json"

    @property
    def trained_dataset(self) -> Path:
        """The clips and captions that the training was made with, by name."""
        return self.training / "dataset.json"

    def experiments(self) -> Iterator[ProjectPaths]:
        """The project's experiments that have been trained, sorted by name."""
        for path in sorted(self.root.glob(f"{RESULTS}/*/train/metrics.jsonl")):
            yield ProjectPaths(self.root, path.parts[-3])

    def with_samples(self) -> Iterator[ProjectPaths]:
        """The project, and its experiments that have samples or previews, sorted by name."""
        yield self
        found = {path.parts[-2] for path in self.root.glob(f"{RESULTS}/*/{self.samples.name}")}
        found |= {path.parts[-3] for path in self.root.glob(f"{RESULTS}/*/{self.training.name}/{self.previews.name}")}
        yield from (ProjectPaths(self.root, run) for run in sorted(found))

    def set_aside(self) -> Iterator[Path]:
        """The metrics of earlier trainings, whose folders were moved aside."""
        return iter(sorted(self.results.glob("train-*/metrics.jsonl")))

    # -- what the planner and the jobs tell one another ---------------------------------------------------------------

    @property
    def specs(self) -> Path:
        """The folder of what each product has to be made from, written when the workflow is planned."""
        return self.results / "specs"

    def spec(self, stage: str) -> Path:
        """The spec of one job, such as `train` or `sample_latents.NAME`."""
        return self.specs / f"{stage}.json"

    def trial_spec(self, stage: str) -> Path:
        """The spec of one job in a dry run, which may be of a config that is not saved yet."""
        return self.hidden / "dry-run" / self.run / f"{stage}.json"

    def manifests(self, kind: EncodedKind) -> Path:
        """The folder of the manifests of a kind, one folder in it for each way of encoding."""
        return self.results / "manifests" / kind

    # -- logs -------------------------------------------------------------------------------------------------------

    @property
    def logs(self) -> Path:
        return self.results / "logs"

    def log(self, job: str) -> Path:
        """The log of a job, such as `train` or `sample_video.NAME`."""
        return self.logs / f"{job}.log"

    def failure(self, log: Path) -> Path:
        """The record of a job's failure, beside its log."""
        return log.with_suffix(".failure.json")

    def all_logs(self) -> Iterator[Path]:
        """The logs of all jobs of the project and of its experiments that are there, sorted."""
        return iter(sorted(self.results.glob("**/logs/*.log")))

    @property
    def benchmarks(self) -> Path:
        return self.results / "benchmarks"

    def benchmark(self, job: str) -> Path:
        """The time and memory of a job, as Snakemake measured them."""
        return self.benchmarks / f"{job}.tsv"

    # -- hidden: runs of the workflow, and what only saves time ------------------------------------------------------

    @property
    def hidden(self) -> Path:
        """Runs of the workflow and caches of the planner; losing it loses no result."""
        return self.root / ".hv15"

    @property
    def lock(self) -> Path:
        return self.hidden / "run.lock"

    @property
    def runs(self) -> Path:
        return self.hidden / "runs"

    @property
    def told(self) -> Path:
        """What the products told of themselves when they were last read."""
        return self.hidden / "told.json"

    @property
    def looks(self) -> Path:
        """What the last plan found good before the first job."""
        return self.hidden / "looks.json"
