"""A project: one config, its dataset as it is on disk now, and what follows from the two.

Everything here is cheap and loads no model: the planner, `hv15 check` and the jobs all ask the same object, so that a
job can tell whether the dataset is still the one that was planned for. Each part has a module of its own:

- dataset: the captioned media, by content
- encodings: what has to be encoded, and which settings change what comes out
- training: what the training depends on, and what it reads
- continuing: what it starts from, if that is another training
- checkpoints: the LoRA after one of its steps
- products: the files that belong to a finished LoRA
- family: what the config and its experiments have in common
- model_files: where the models are, and the identities by which they enter the digests
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from hv15.cache.batches import TrainingItem
from hv15.cache.encoding import Encoding, NeededClips, NeededMask
from hv15.choices import Role, roles_of
from hv15.config import Settings
from hv15.config.experiments import Experiment
from hv15.config.load import ConfigSource
from hv15.digest import digest
from hv15.environment import CONFIG_VARIABLE, OVERRIDES_VARIABLE
from hv15.errors import UserError
from hv15.models.weights.fingerprint import model_fingerprint
from hv15.project.checkpoints import checkpoint_spec, earlier_step, kept_checkpoints
from hv15.project.continuing import find_start, with_origin
from hv15.project.family import Family
from hv15.project.model_files import ModelFiles
from hv15.project.training import training_items, training_spec, validation_items
from hv15.records.json_values import Json, JsonObject, RecordError
from hv15.records.paths import ProjectPaths, project_of
from hv15.records.problems import ConfigError, Place, Problem
from hv15.records.trained_dataset import TrainedDataset
from hv15.sample.plan import plan_all_enlarged, plan_previews, plan_samples
from hv15.sample.prompts import SampleSpec
from hv15.train.origin import Origin

__all__ = ["ModelFiles", "Project"]

_DATASETS = Place(setting=("datasets",))


class Project:
    """The config of a folder and what it asks for.

    Args:
        config: the config file; its folder is the project.
        overrides: settings given on the command line, nested as in the file.
        text: what to read instead of the file.
        models: files to use instead of the demo's or downloaded ones.
        experiment: the name of one of the config's experiments, whose settings and results these are; "": the config's
            own.
        overrides_win: whether the overrides count more than the experiment's own values.
        like: the same project as another experiment, with which it shares what is the same; instead of `text` and
            `models`.

    Raises:
        ConfigError: the config is wrong, or has no such experiment.
    """

    def __init__(
        self,
        config: Path,
        overrides: Mapping[str, Json] | None = None,
        *,
        text: str | None = None,
        models: Mapping[Role, Path] | None = None,
        experiment: str = "",
        overrides_win: bool = False,
        like: Project | None = None,
    ) -> None:
        self.config = Path(config)
        self.overrides = dict(overrides or {})
        if like is None:
            source = ConfigSource(self.config, self.overrides, text=text, overrides_win=overrides_win)
            self._family = Family(source, models or {}, _reproduced_clips(self.config))
            self._runs: dict[str, Project] = {}
        else:
            self._family, self._runs = like._family, like._runs
        self._runs[experiment] = self
        self.settings: Settings = self._family.file.settings(experiment)
        self.root = self.settings.root
        self.paths = ProjectPaths(self.root, experiment or project_of(self.config).run)
        self.cache = self._family.store
        self.models = self._family.models(self.settings)
        self.dataset = self._family.dataset(self.settings)

    # -- experiments ------------------------------------------------------------------------------------------------

    @property
    def run(self) -> str:
        """The experiment's name; "" for the base config."""
        return self.paths.run

    @property
    def experiments(self) -> Mapping[str, Experiment]:
        """What the config's experiments change, by their names, in order."""
        return self._family.file.experiments

    def experiment(self, name: str) -> Project:
        """Return the project with the settings and results of an experiment; "": of the base config.

        What is the same in both is looked at once.

        Raises:
            ConfigError: there is no such experiment, or its settings are wrong.
        """
        if name not in self._runs:
            return Project(self.config, self.overrides, experiment=name, like=self)
        return self._runs[name]

    def check_experiments(self) -> None:
        """Check the settings of all experiments.

        Raises:
            ConfigError: with the problems of all of them.
        """
        self._family.file.check_experiments()

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables by which a command of a job opens the same project.

        They are not on its command line: a line of 100 overrides would hide what the job does. They keep their order,
        which counts in a mapping of patterns.
        """
        return {CONFIG_VARIABLE: str(self.config), OVERRIDES_VARIABLE: json.dumps(self.overrides)}

    # -- encoding ---------------------------------------------------------------------------------------------------

    @cached_property
    def latents(self) -> Encoding[NeededClips]:
        """The clips to encode."""
        return self._family.latents(self.settings, self.models, self.dataset, self.paths)

    @cached_property
    def masks(self) -> Encoding[NeededMask]:
        """The masks of the clips to encode; it needs nothing if there are none."""
        return self._family.masks(self.settings, self.dataset, self.paths)

    @property
    def encodings(self) -> tuple[Encoding[object], ...]:
        """Everything to encode."""
        return self.latents, self.texts, self.masks

    @cached_property
    def texts(self) -> Encoding[str]:
        """The captions and prompts to encode."""
        prompts = (text for spec in self.samples.values() for text in (spec.prompt, spec.negative_prompt))
        return self._family.texts(self.settings, self.models, self.dataset, prompts, self.paths)

    # -- training ---------------------------------------------------------------------------------------------------

    @cached_property
    def training_spec(self) -> JsonObject:
        """Everything that changes the trained LoRA, without names and paths.

        Raises:
            UserError: a file is missing, or a dataset cannot be used.
        """
        return self.spec_without_start if self.start is None else with_origin(self.spec_without_start, self.start)

    @cached_property
    def trained_digest(self) -> str | None:
        """What stands for the published LoRA in the specs of all that is made with it; None if nothing is trained.

        Raises:
            UserError: as `training_spec`.
        """
        return digest(self.published_spec) if self.settings.datasets else None

    @cached_property
    def start(self) -> Origin | None:
        """What the training starts from; None if it is a new LoRA.

        Raises:
            UserError: it is not there or cannot be used; or as `spec_without_start`.
        """
        return find_start(self.settings, self.paths, self.spec_without_start, self._digest_of_setting)

    @cached_property
    def spec_without_start(self) -> JsonObject:
        """The training's spec without what it starts from.

        Raises:
            UserError: as `training_spec`.
        """
        if not self.settings.datasets:
            found = "is missing: there is nothing to train on"
            raise ConfigError([Problem(found, "add a dataset to config.yaml, or ask for samples", _DATASETS)])
        return training_spec(
            self.settings,
            self.models,
            self.dataset,
            latents=self.latents.settings_digest,
            text=self.texts.settings_digest,
            masks=self.masks.settings_digest,
            file_digest=self._digest_of_setting,
        )

    # -- the LoRA after a step --------------------------------------------------------------------------------------

    @property
    def published_spec(self) -> JsonObject:
        """Everything on which the LoRA depends that is published, sampled and converted.

        Raises:
            UserError: as `training_spec`.
        """
        return self.spec_after(self.settings.train.publish_step)

    def spec_after(self, step: int | None) -> JsonObject:
        """Everything on which the LoRA after a step depends; None: after the last one.

        Raises:
            UserError: as `training_spec`.
        """
        train = self.settings.train
        before_the_end = earlier_step(train, step)
        return (
            self.training_spec if before_the_end is None else checkpoint_spec(train, self.training_spec, before_the_end)
        )

    @cached_property
    def kept(self) -> dict[int, Path]:
        """The LoRA files that are there of this training, by step.

        Raises:
            UserError: as `training_spec`.
        """
        return kept_checkpoints(self.settings.train, self.training_spec, self.paths)

    def training_items(self) -> list[TrainingItem]:
        """Every clip with its caption, as the manifests list them.

        Raises:
            UserError: something is not encoded yet, or no clip is left.
        """
        entries = self.latents.entries()
        self.texts.entries()  # training reads them by their keys
        return training_items(self.dataset, entries, self.masks.entries())

    def validation_items(self) -> list[TrainingItem]:
        """Every clip that is not trained on with its caption; empty if there is no validation.

        Raises:
            UserError: something is not encoded yet, or no clip is left.
        """
        if not self.settings.train.validation.is_on:
            return []
        return validation_items(self.dataset, self.latents.entries(), self.masks.entries())

    # -- samples ----------------------------------------------------------------------------------------------------

    @cached_property
    def samples(self) -> dict[str, SampleSpec]:
        """What is sampled, by name.

        Raises:
            UserError: a model, an image or a LoRA is missing.
        """
        models: dict[str, str] = {role: self.models.identity(role) for role in roles_of(self.settings.task)}
        specs = plan_samples(self.settings, self.models.variant, models, self._file_digest)
        return {spec.name: spec for spec in specs}

    @cached_property
    def enlarged(self) -> dict[str, SampleSpec]:
        """What super resolution makes of the samples, by their names.

        Raises:
            UserError: as `samples`, or a model of super resolution is missing or another one than was asked for.
        """
        if self.settings.sample.enlarging == "off":
            return {}
        models: dict[str, str] = {role: self.models.identity(role) for role in self.settings.roles if role != "dit"}
        return plan_all_enlarged(self.settings, self.samples, self.models.super_resolution, models)

    @cached_property
    def previews(self) -> list[SampleSpec]:
        """What is sampled while training.

        Raises:
            UserError: as `samples`.
        """
        return plan_previews(self.settings, self.samples)

    def sample(self, name: str) -> SampleSpec:
        """One sample's spec.

        Raises:
            UserError: the config has no prompt of that name.
        """
        if name not in self.samples:
            raise UserError.at(
                self.config,
                f"no sample is called {name}; there are: {', '.join(self.samples) or 'none'}",
                hint="add it to sample.prompts",
            )
        return self.samples[name]

    # -- files ------------------------------------------------------------------------------------------------------

    def _digest_of_setting(self, setting: str, path: str) -> str:
        """The fingerprint of a file that a setting names; an error names the setting."""
        try:
            return self._file_digest(self.settings.resolve(path))
        except UserError as error:
            raise UserError(f"{setting}: {error.message}", hint=error.hint) from error

    def _file_digest(self, path: Path) -> str:
        return model_fingerprint(path, cache=self._family.fingerprints)

    def save_caches(self) -> None:
        """Save what was learnt about files, so that the next plan is quick."""
        self._family.fingerprints.save()


def _reproduced_clips(config: Path) -> TrainedDataset | None:
    """The clips of a reproduction, if it is known which they were; None: all that the datasets hold.

    Raises:
        UserError: the file that lists them is damaged.
    """
    paths = project_of(config)
    path = paths.reproduced_dataset
    if not paths.run or not path.exists():
        return None
    try:
        return TrainedDataset.load(path)
    except RecordError as error:
        raise UserError.at(path, str(error), hint="remove it, then run `hv15 reproduce` again") from None
