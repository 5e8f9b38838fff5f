"""The paths of all files of a project.

The rules, the commands and the dashboard take every path from here. With the project's folder as `root`, the paths are
valid from anywhere; with the default, they are relative to the project folder, as in Snakemake.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from hv15.records.comparison_paths import ComparisonPaths

EncodedKind = Literal["latents", "text", "masks"]
"""The kinds of encoded items: clips, captions or prompts, and masks of clips."""

RESULTS = "results"
REPRODUCED = "reproduced"
CONFIG = "config.yaml"

MANIFESTS = "*-of-*.json"
"""Matches the names of manifests, in the folder of a set of encoding settings."""


def manifest_name(shard: int | str, shards: int | str) -> str:
    """Return the name of a shard's manifest; `shard` may be a wildcard in braces."""
    return f"{shard}-of-{shards}.json"


def config_file(project: Path) -> Path:
    """Return the config file of a project, given the project's folder or the config file itself."""
    return project / CONFIG if project.is_dir() else project


def project_of(config: Path) -> ProjectPaths:
    """Return the paths of the project that a config file describes: those below its own folder.

    The config of a reproduction lies among the results of the project, whose folder its relative paths start at.
    """
    folder = config.absolute().parent
    if folder.parts[-3:-1] == (RESULTS, REPRODUCED):
        return ProjectPaths(folder.parents[2]).reproduction(folder.name)
    return ProjectPaths(folder)


def average_of(lora: Path) -> Path:
    """Return the file of a LoRA's moving average, beside the LoRA's own."""
    return lora.with_suffix(f".ema{lora.suffix}")


def copy_of_step(step: int) -> str:
    """Return the file name of the copy of the LoRA that a training keeps after a step."""
    return f"lora-step{step:06d}.safetensors"


@dataclass(frozen=True)
class ProjectPaths:
    """The files of one project, or of one of its experiments."""

    root: Path = Path()
    """The project folder."""
    run: str = ""
    """The experiment's name, or the folder of a reproduction in `results`; "" for the base config."""

    @property
    def config(self) -> Path:
        return self.root / CONFIG

    @property
    def project_lock(self) -> Path:
        """The versions, models and clips that the project was locked with (`hv15 lock`)."""
        return self.root / "hv15.lock"

    @property
    def results(self) -> Path:
        """The folder of all results."""
        return _results(self.root, self.run)

    # -- results for the user ---------------------------------------------------------------------------------------

    @property
    def lora(self) -> Path:
        """The published LoRA, which exists only if everything that belongs to it does."""
        return self.results / "lora.safetensors"

    def converted(self, layout: str, name: str = "lora") -> Path:
        """Return the LoRA's file in another program's layout, which may be a wildcard in braces.

        Args:
            name: the setting `convert.output_name`.
        """
        return self.results / f"{name}.{layout}.safetensors"

    @property
    def samples(self) -> Path:
        return self.results / "samples"

    def condition(self, name: str) -> Path:
        """Return the file of an i2v sample's encoded first image; `name` may be a wildcard in braces."""
        return self.samples / f"{name}.condition.safetensors"

    @property
    def contact_sheet(self) -> Path:
        return self.samples / "contact_sheet.png"

    @property
    def sample_grid(self) -> Path:
        """The samples at all strengths and with all LoRAs that are compared, in one picture."""
        return self.samples / "grid.png"

    @property
    def sample_film(self) -> Path:
        """The same, side by side in one video."""
        return self.samples / "grid.mp4"

    @property
    def untaken(self) -> Path:
        """The folder of what the job of a shard has made and the samples' own jobs have not taken yet."""
        return self.samples / ".untaken"

    def before_taken(self, product: Path) -> Path:
        """Return where the job of a shard leaves a sample's file; the file may have wildcards in braces."""
        return self.untaken / product.relative_to(self.results)

    def made(self, shard: str) -> Path:
        """Return the list of what the job of a shard has made, such as `sample_shard.0`."""
        return self.untaken / f"{shard}.json"

    @property
    def all_checkpoints(self) -> Path:
        """The folder of what was made with LoRAs of single steps."""
        return self.results / "checkpoints"

    @property
    def checkpoint_sheet(self) -> Path:
        """The samples of all checkpoints in one picture."""
        return self.all_checkpoints / "grid.png"

    @property
    def checkpoint_film(self) -> Path:
        """The samples of all checkpoints side by side in one video."""
        return self.all_checkpoints / "grid.mp4"

    def checkpoint(self, step: int | str) -> Path:
        """Return the folder of what was made with the LoRA after a step; `step` may be a wildcard in braces."""
        return self.all_checkpoints / str(step)

    def sampled_checkpoints(self) -> dict[int, Path]:
        """Return the existing folders of what was made with LoRAs of single steps, by step."""
        folders = [path for path in self.all_checkpoints.glob("*") if path.name.isdecimal()]
        return {int(path.name): path for path in sorted(folders, key=lambda path: int(path.name))}

    def checkpoint_lora(self, step: int | str) -> Path:
        """Return the LoRA after a step as it is published; `step` may be a wildcard in braces."""
        return self.checkpoint(step) / "lora.safetensors"

    @property
    def again(self) -> Path:
        """The folder of samples that were asked for once more by hand, with other settings."""
        return self.results / "again"

    @property
    def plan(self) -> Path:
        """The estimated memory and time of each stage, as text."""
        return self.results / "plan.txt"

    @property
    def report(self) -> Path:
        """The page of all results."""
        return self.results / "report.html"

    @property
    def card(self) -> Path:
        """The model card, for publishing."""
        return self.results / "README.md"

    @property
    def checked_models(self) -> Path:
        """The results of checking the model files."""
        return self.results / "models.json"

    # -- training ---------------------------------------------------------------------------------------------------

    @property
    def trained(self) -> Path:
        """The LoRA as trained, from which samples and conversions are made."""
        return self.results / "train.safetensors"

    @property
    def training(self) -> Path:
        """The folder of one training: its states, metrics, checkpoints and summary."""
        return self.results / "train"

    @property
    def metrics(self) -> Path:
        return self.training / "metrics.jsonl"

    @property
    def training_lock(self) -> Path:
        """Locked by the kernel (flock) as long as a training works in its folder."""
        return self.training.with_name(f"{self.training.name}.lock")

    @property
    def states(self) -> Path:
        return self.training / "state"

    @property
    def origin(self) -> Path:
        """The folder of what the training started from: a state, or the weights of a LoRA."""
        return self.training / "origin"

    @property
    def checkpoints(self) -> Path:
        """The folder of the copies that the training keeps on its way."""
        return self.training / "checkpoints"

    @property
    def best(self) -> Path:
        """The LoRA with the lowest validation loss (`train.validation.keep_best`)."""
        return self.checkpoints / "best.safetensors"

    @property
    def previews(self) -> Path:
        """The folder of samples that are made during training."""
        return self.training / "previews"

    @property
    def sample_now(self) -> Path:
        """A file that asks a running training for previews: it removes the file and makes them after its step."""
        return self.training / "sample-now"

    @property
    def summary(self) -> Path:
        return self.training / "summary.json"

    @property
    def curves(self) -> Path:
        """The folder of pictures of the metrics (`hv15.train.curves`)."""
        return self.training / "curves"

    @property
    def tensorboard(self) -> Path:
        """What TensorBoard reads."""
        return self.training / "tensorboard"

    @property
    def wandb(self) -> Path:
        """What Weights & Biases has not sent."""
        return self.training / "wandb"

    @property
    def trained_dataset(self) -> Path:
        """The clips and captions of the training, by name."""
        return self.training / "dataset.json"

    def comparison(self) -> ComparisonPaths:
        """Return the files that compare the project's experiments."""
        return ComparisonPaths(self.root / RESULTS)

    # -- LoRAs that are made again from what they tell --------------------------------------------------------------

    def reproduction(self, digest: str) -> ProjectPaths:
        """Return the paths of the reproduction of a LoRA; all that it makes is below its `results`."""
        return ProjectPaths(self.root, f"{REPRODUCED}/{digest}")

    @property
    def reproduced_config(self) -> Path:
        """The config of the training that is made again, as its LoRA tells it."""
        return self.results / CONFIG

    @property
    def reproduced_dataset(self) -> Path:
        """The clips and captions of the training that is made again, by name; others are left out."""
        return self.results / "dataset.json"

    @property
    def reproduction_record(self) -> Path:
        """Whether the LoRA that was made again is the same, or where it differs."""
        return self.results / "reproduction.json"

    def set_aside(self) -> Iterator[Path]:
        """Return the metrics of earlier trainings, whose folders were moved aside."""
        return iter(sorted(self.results.glob("train-*/metrics.jsonl")))

    # -- files that the planner and the jobs exchange ----------------------------------------------------------------

    @property
    def specs(self) -> Path:
        """The folder of the products' specs, which are written when the workflow is planned."""
        return self.results / "specs"

    def spec(self, stage: str) -> Path:
        """Return the spec of a job, such as `train` or `sample_latents.NAME`."""
        return self.specs / f"{stage}.json"

    def trial_spec(self, stage: str) -> Path:
        """Return the spec of a job in a dry run, which may be of a config that is not saved yet."""
        return self.trials / self.run / f"{stage}.json"

    @property
    def trials(self) -> Path:
        """The folder of the specs of a dry run."""
        return self.hidden / "dry-run"

    @property
    def no_spec(self) -> Path:
        """Stands for each spec in a dry run that need not be written."""
        return self.trials / "none.json"

    @property
    def all_manifests(self) -> Path:
        """The folder of the manifests of all kinds."""
        return self.results / "manifests"

    def manifests(self, kind: EncodedKind) -> Path:
        """Return the folder of the manifests of a kind, with a folder in it for each set of encoding settings."""
        return self.all_manifests / kind

    def manifests_of_others(self, kind: EncodedKind) -> Iterator[Path]:
        """Yield the existing folders of the manifests of a kind of the other runs: the base config, experiments."""
        base = ProjectPaths(self.root)
        folders = [base.manifests(kind), *sorted(self.root.glob(f"{RESULTS}/*/{base.all_manifests.name}/{kind}"))]
        yield from (folder for folder in folders if folder != self.manifests(kind) and folder.is_dir())

    # -- logs -------------------------------------------------------------------------------------------------------

    @property
    def logs(self) -> Path:
        return self.results / "logs"

    def log(self, job: str) -> Path:
        """Return the log of a job, such as `train` or `sample_video.NAME`."""
        return self.logs / f"{job}.log"

    def failure(self, log: Path) -> Path:
        """Return the record of a job's failure, beside its log."""
        return log.with_suffix(".failure.json")

    def all_logs(self) -> Iterator[Path]:
        """Return the existing logs of all jobs of the project and its experiments, sorted."""
        return iter(sorted(self.results.glob("**/logs/*.log")))

    @property
    def benchmarks(self) -> Path:
        return self.results / "benchmarks"

    def benchmark(self, job: str) -> Path:
        """Return the file with a job's time and memory as measured by Snakemake."""
        return self.benchmarks / f"{job}.tsv"

    # -- hidden files: runs of the workflow, and caches --------------------------------------------------------------

    @property
    def hidden(self) -> Path:
        """Runs of the workflow and caches of the planner; no result is lost if it is deleted."""
        return self.root / ".hv15"

    @property
    def lock(self) -> Path:
        return self.hidden / "run.lock"

    @property
    def runs(self) -> Path:
        return self.hidden / "runs"

    @property
    def recorded_products(self) -> Path:
        """The specs in the products' metadata when they were last read."""
        return self.hidden / "told.json"

    @property
    def complete_encodings(self) -> Path:
        """The encodings that were found complete (`hv15.cache.complete`)."""
        return self.hidden / "complete.json"

    @property
    def job_requests(self) -> Path:
        """What jobs ask a cluster for, as it was planned (`hv15.workflow.job_resources`)."""
        return self.hidden / "requests.json"

    @property
    def passed_checks(self) -> Path:
        """What was checked before the first job and found good (`hv15.plan.beforehand`)."""
        return self.hidden / "looks.json"


@cache
def _results(root: Path, run: str) -> Path:
    return root / RESULTS / run
