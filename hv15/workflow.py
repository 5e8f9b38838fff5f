"""What the rules ask: which files, which digests, which targets. The Snakefile names files and knows nothing else.

Attempts: Snakemake (9.27) does not look at a job's own reasons to run when anything upstream of it runs, not even
behind `ancient()`. A training that failed, whose spec was written then, would be passed over by a call that encodes
something, and the call would end well without it. So each spec counts attempts: while its product is missing or of
another spec, the next plan asks for the next attempt, the spec is written anew, and what depends on it runs.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from hv15.cache.plan import Plan
from hv15.cache.store import Kind
from hv15.demo.layout import DEMO_OUTPUTS
from hv15.digest import digest
from hv15.errors import UserError
from hv15.model_files import ROLES, Role
from hv15.models.header import read_header
from hv15.project import Project
from hv15.runs.events import record_events
from hv15.sample.prompts import SampleSpec
from hv15.sample.provenance import LORAS, SAMPLE

TRAINED, PUBLISHED = "results/train.safetensors", "results/lora.safetensors"


def open_project(workflow: Any, config: Mapping[str, Any]) -> WorkflowProject:
    """Open the project of a running Snakefile: config.yaml in the working directory, or the `--configfile`.

    Args:
        workflow: Snakemake's workflow object.
        config: what the command line gave: `--config` values, merged over the config file if one was named.

    Raises:
        snakemake.exceptions.WorkflowError: anything a user can put right, in one message.
    """
    from snakemake.exceptions import WorkflowError

    recorder = record_events(workflow)
    files = [Path(file) for file in workflow.overwrite_configfiles]
    try:
        file = _relative(files[0]) if files else Path("config.yaml")
        project = WorkflowProject(file, _changes(file, config) if files else config)
        os.environ.update(project.environment)  # the jobs' commands find the same project by it
        os.environ["HV15_SOURCE"] = str(workflow.basedir)  # rules/environment.yaml installs from it
        if workflow.is_main_process:
            project.prepare()
    except UserError as error:
        if recorder is not None:
            recorder.refused(error)
        raise WorkflowError(str(error)) from None
    return project


def _changes(file: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of Snakemake's merged config that is not in the config file: what came from the command line."""
    base = yaml.safe_load(file.read_text(encoding="utf-8"))
    return _difference(base if isinstance(base, dict) else {}, config)


def _difference(base: Mapping[str, Any], merged: Mapping[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in merged.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), Mapping):
            if inner := _difference(base[key], value):
                result[key] = inner
        elif key not in base or base[key] != value:
            result[key] = value
    return result


def _relative(path: Path) -> Path:
    """A path as the rules name it: from the working directory where that is possible."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else Path(relative)


def _told(path: Path, name: str) -> Any:
    """A JSON value in the metadata of a .safetensors file; None if the file is missing, damaged or does not tell."""
    try:
        return json.loads(read_header(path).metadata[name])
    except (UserError, KeyError, ValueError):
        return None


class WorkflowProject(Project):
    """A project with the file names of its workflow; paths are relative to the project folder, as Snakemake wants."""

    def prepare(self) -> None:
        """What only the main process does before the jobs are planned: find out all that can be found out now.

        Raises:
            UserError: model files are missing, or else datasets, images and LoRAs; all of a kind at once.
        """
        self.models.check()  # alone: without the files, what follows would only say the same again
        problems: list[str] = []
        for look in (lambda: self.sources, lambda: self.samples, lambda: self.train_spec):
            try:
                look()
            except UserError as error:
                if str(error) not in problems:
                    problems.append(str(error))
        if problems:
            raise UserError("\n".join(problems))
        self.save_caches()

    @property
    def gpu(self) -> int:
        """GPUs of a job with a model. On the CPU none, so that such jobs run beside one another."""
        return int(self.settings.runtime.device != "cpu")

    # -- models -----------------------------------------------------------------------------------------------------

    def model_inputs(self, *roles: Role) -> list[str]:
        """The files that a job has to wait for because another job makes them; files that a person gave need none."""
        return [str(_relative(path)) for role in roles for path in self.models.made(role)]

    @property
    def roles(self) -> list[Role]:
        """The models that the task needs."""
        return [role for role in ROLES if role != "image_encoder" or self.settings.task == "i2v"]

    @cached_property
    def models_digest(self) -> str:
        return digest([[role, self.models.identity(role)] for role in self.roles])

    @property
    def checked(self) -> list[str]:
        """What encoding waits for: the check of the model files, unless the workflow makes them itself."""
        return [] if self.source == "demo" else ["results/models.txt"]

    @cached_property
    def demo_outputs(self) -> list[str]:
        """The files of the demo's models."""
        folder = self.settings.resolve(self.settings.models.directory)
        return [str(_relative(folder / name)) for name in DEMO_OUTPUTS]

    @cached_property
    def downloads(self) -> dict[Role, list[str]]:
        """Role -> the files that are fetched from the Hub."""
        return {role: files for role in ROLES if (files := self.model_inputs(role)) and self.source == "hub"}

    @property
    def source(self) -> str:
        return self.settings.models.source

    # -- encoding ---------------------------------------------------------------------------------------------------

    def plan(self, kind: Kind) -> Plan[Any]:
        return self.latents if kind == "latents" else self.texts

    def pattern(self, kind: Kind) -> str:
        """The manifest of a shard, with the wildcard `shard`."""
        plan = self.plan(kind)
        return str(_relative(plan.folder / f"{{shard}}-of-{plan.shards}.json"))

    def manifests(self, kind: Kind) -> list[str]:
        plan = self.plan(kind)
        return [str(_relative(plan.manifest_path(shard))) for shard in range(plan.shards)]

    def report(self, kind: Kind) -> str:
        return str(_relative(self.plan(kind).report_path))

    # -- training ---------------------------------------------------------------------------------------------------

    @cached_property
    def plan_digest(self) -> str:
        """Of all that a plan of memory and time depends on, but the machine."""
        return digest([self.settings.dump(), self.dataset_digest])

    @cached_property
    def train_digest(self) -> str:
        return digest(self.train_spec)

    @cached_property
    def train_attempt(self) -> int:
        """Due until a LoRA of this very spec is there, published or about to be."""
        made = [_told(self.root / name, "hv15.spec") for name in (TRAINED, PUBLISHED)]
        return self._attempt("results/train.json", due=self.train_spec not in made)

    def _attempt(self, spec: str, *, due: bool) -> int:
        """The number of the attempt that a spec's file belongs to, or of the next one if its product is due."""
        try:
            written = int(json.loads((self.root / spec).read_text(encoding="utf-8"))["attempt"])
        except (OSError, ValueError, KeyError, TypeError):
            written = 0
        return written + due

    # -- samples and other products ---------------------------------------------------------------------------------

    @property
    def sample_pattern(self) -> str:
        """Matches the names of this project's samples, and nothing else."""
        return "|".join(re.escape(name) for name in self.samples) or "(?!)"

    def sample_digest(self, name: str) -> str:
        return self.sample(name).digest

    def denoising_digest(self, name: str) -> str:
        return digest(self.sample(name).denoising)

    def denoising_attempt(self, name: str) -> int:
        """Due until there are latents of this very spec, made with the trained LoRA that is there."""
        spec, latents = self.sample(name), self.root / f"results/samples/{name}.latents.safetensors"
        try:
            due = SampleSpec.from_json(_told(latents, SAMPLE) or {}).denoising != spec.denoising
        except UserError:
            due = True
        if spec.lora_multiplier is not None and (self.root / TRAINED).exists():
            used = [each["fingerprint"] for each in _told(latents, LORAS) or []]
            due = due or self._file_digest(self.root / TRAINED) not in used
        return self._attempt(f"results/samples/{name}.denoising.json", due=due)

    def sample_inputs(self, name: str) -> dict[str, str]:
        """What denoising needs beside its spec: the trained LoRA, and for i2v the encoded first image."""
        spec = self.sample(name)
        inputs = {"lora": TRAINED} if spec.lora_multiplier is not None else {}
        if spec.task == "i2v":
            inputs["condition"] = f"results/samples/{name}.condition.safetensors"
        return inputs

    def sample_options(self, name: str) -> list[str]:
        return [word for key, file in self.sample_inputs(name).items() for word in (f"--{key}", file)]

    @property
    def sheet_inputs(self) -> list[str]:
        """What the contact sheet is drawn from."""
        return [file for pair in self.sheet_samples.values() for file in pair if file is not None]

    @cached_property
    def products_digest(self) -> str:
        return digest(self.products)

    @cached_property
    def products_attempt(self) -> int:
        """Due until the published LoRA is of this very spec and all that belongs to it is there."""
        published = _told(self.root / PUBLISHED, "hv15.spec") == self.train_spec
        due = not published or not all((self.root / name).exists() for name in self.products)
        return self._attempt("results/products.json", due=due)
