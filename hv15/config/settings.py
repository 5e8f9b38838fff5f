"""The whole config: all sections, and checks across sections."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from pydantic import Field, PrivateAttr, model_validator
from pydantic.config import JsonDict

from hv15.choices import ENLARGING_ROLES, Role, Task, roles_of
from hv15.config.cache import CacheSettings
from hv15.config.convert import ConvertSettings
from hv15.config.datasets import DatasetSettings
from hv15.config.experiments import Experiments, SweepSettings, experiment_conflicts
from hv15.config.models import ModelSettings
from hv15.config.notify import NotifySettings
from hv15.config.runtime import RuntimeSettings
from hv15.config.sample import SampleSettings
from hv15.config.section import PAST, WATCHING, Conflict, Section
from hv15.config.train import TrainSettings
from hv15.records.cache_paths import CachePaths
from hv15.records.json_values import JsonObject
from hv15.records.problems import Location, Place
from hv15.remote_paths import copy_of, is_remote
from hv15.spans import parts


def _or_a_toml_path(schema: JsonDict) -> None:
    """Also accept the path of a musubi file, which `load_config` replaces by the datasets in it."""
    items = {"type": "array", "items": schema.pop("items")}
    schema.pop("type")
    schema["anyOf"] = [items, {"type": "string", "format": "path"}]


class Settings(Section):
    """A project: models, data, training, and what is made with the trained LoRA."""

    task: Task = Field("t2v", json_schema_extra=PAST)
    """The LoRA's task: `t2v` for text-to-video, or `i2v` for image-to-video, which starts from a first frame."""

    models: ModelSettings = ModelSettings()
    """The checkpoint files."""

    datasets: tuple[DatasetSettings, ...] = Field((), json_schema_extra=_or_a_toml_path)
    """The captioned clips: a list of datasets, or the path of a musubi-tuner dataset file (TOML or JSON). Without any,
    nothing is trained: the project only samples."""

    cache: CacheSettings = CacheSettings()
    """How clips and captions are encoded, once, before training."""

    train: TrainSettings = TrainSettings()
    """The LoRA and its training."""

    sample: SampleSettings = SampleSettings()
    """The videos made with the LoRA."""

    convert: ConvertSettings = ConvertSettings()
    """Copies of the LoRA for other programs."""

    experiments: Experiments = Field({})
    """Further trainings that differ in some settings, by name: `small: {train.network_dim: 8}` makes
    results/small/lora.safetensors. All share what is encoded."""

    sweep: SweepSettings = SweepSettings()
    """Experiments of every combination of a few settings' values, named by what differs."""

    runtime: RuntimeSettings = RuntimeSettings()
    """Device and log level."""

    notify: NotifySettings = Field(NotifySettings(), json_schema_extra=WATCHING)
    """Notices of a run: at its end, if it fails, and if it does not go on. None are sent unless `ntfy`, `webhook` or
    `command` is set, here or in ~/.config/hv15/notify.yaml, which holds the same settings for all projects. `hv15
    notify --test` sends one (docs/notices.md)."""

    _root: Path = PrivateAttr(default_factory=Path.cwd)
    _prompt_places: dict[int, Place] = PrivateAttr(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _empty_section_is_default(cls, data: object) -> object:
        """Use the defaults for a section without settings (`train:`)."""
        if not isinstance(data, dict):
            return data
        optional = {name for name, field in cls.model_fields.items() if isinstance(field.default, Section)}
        return {name: value for name, value in data.items() if value is not None or name not in optional}

    def conflicts(self) -> Iterator[Conflict]:
        yield from super().conflicts()
        for name in self.models.missing_files(self.roles):
            needs = f"task {self.task} needs its path (or models.source hub or demo)"
            if name in ENLARGING_ROLES:
                needs = f"sample.sr is {self.sample.enlarging}, which needs its path (or models.source hub or demo)"
            yield ("models", name), f"is missing: {needs}"
        if self.datasets and all(dataset.targets_prior for dataset in self.datasets):
            text = "all are regularisation, so there is nothing to learn: add a dataset, or set reg_target: clips"
            yield ("datasets",), text
        yield from self._idle_datasets()
        yield from experiment_conflicts(self.experiments, self.sweep)
        for setting, folder in (
            (("cache", "directory"), self.cache.directory),
            (("cache", "scratch"), self.cache.scratch or ""),
            (("models", "directory"), self.models.directory),
        ):
            if is_remote(folder):
                yield setting, f"found '{folder}', but files are written there: use a folder of this machine"
        for number, dataset in enumerate(self.datasets):
            if is_remote(dataset.source) and dataset.source.endswith(".jsonl"):
                text = "a list in remote storage cannot be read: use a folder there (video_directory, image_directory)"
                yield ("datasets", number), text
        names = [prompt.name for prompt in self.sample.prompts]
        for index, wanted in enumerate(self.train.previews):
            if wanted not in names:
                text = f"no prompt in sample.prompts is called '{wanted}'; there are: {', '.join(names) or 'none'}"
                yield ("train", "previews", index), text
        has_loras = self.datasets or self.sample.loras or self.sample.compare
        if self.sample.strengths and not has_loras and not any(prompt.loras for prompt in self.sample.prompts):
            yield ("sample", "strengths"), "has no effect: no LoRA is trained, and none is in sample.loras or compare"
        for index, wanted in enumerate(self.convert.gallery):
            if wanted not in names:
                text = f"no prompt in sample.prompts is called '{wanted}'; there are: {', '.join(names) or 'none'}"
                yield ("convert", "gallery", index), text
        for index, prompt in enumerate(self.sample.prompts):
            where = ("sample", "prompts", index, "image_path")
            if self.task == "i2v" and prompt.image_path is None:
                yield where, "is missing: task i2v starts from an image"
            if self.task == "t2v" and prompt.image_path is not None:
                yield where, "is set, but task is t2v: remove it, or set task: i2v"

    def _idle_datasets(self) -> Iterator[Conflict]:
        """Datasets that never take part in the training, or else steps in which none does."""
        total, is_idle = self.train.max_train_steps, False
        for number, dataset in enumerate(self.datasets):
            if total is not None and dataset.start_step >= total:
                is_idle = True
                text = f"found {dataset.start_step}, but the training has {total} steps: it would never take part"
                yield ("datasets", number, "start_step"), text
        spans = [dataset.span for dataset in self.datasets]
        for part in () if is_idle or not spans else parts(spans):
            if (total is None or part.start < total) and not any(span.has(part.start) for span in spans):
                yield ("datasets",), f"none of them takes part {part}: see start_step and end_step"

    @property
    def roles(self) -> tuple[Role, ...]:
        """The models that the project needs: those of its task and, if samples are made larger, of super resolution."""
        return roles_of(self.task) + (ENLARGING_ROLES if self.sample.enlarging != "off" else ())

    @property
    def i2v_prob(self) -> float:
        """The share of videos that are trained with their first frame as the condition: none for text-to-video."""
        return self.train.i2v_prob if self.task == "i2v" else 0.0

    @property
    def trains_both_tasks(self) -> bool:
        """Whether image-to-video and text-to-video are both trained."""
        return 0 < self.i2v_prob < 1

    @property
    def root(self) -> Path:
        """The project folder, at which relative paths start (`hv15.records.paths.project_of`)."""
        return self._root

    @property
    def prompts_file(self) -> Path | None:
        """The file of prompts that was read beside the config; None if there is none."""
        return next((place.file for place in self._prompt_places.values()), None)

    def place_of(self, setting: Location) -> Place:
        """Return the place of a setting; of a prompt that stands in `sample.prompts_file`, with file and line."""
        number = setting[2] if setting[:2] == ("sample", "prompts") and len(setting) > 2 else None
        if isinstance(number, int) and number in self._prompt_places:
            return replace(self._prompt_places[number], setting=setting[3:])
        return Place(setting=setting)

    def resolve(self, path: str) -> Path:
        """Make a setting's path absolute: `~` is expanded, and relative paths start at the project folder.

        Of a path in remote storage, that of its copy on this machine.
        """
        if is_remote(path):
            return copy_of(path, CachePaths(self.resolve(self.cache.directory)).remote)
        return self._root / Path(path).expanduser()

    def dump(self, sections: Collection[str] | None = None) -> JsonObject:
        """Return all settings, including defaults, as JSON values that `load_config` accepts.

        Experiments and notices are left out: what is made with these settings does not depend on them.

        Args:
            sections: the only ones to return; None: all.
        """
        chosen = None if sections is None else {*sections}
        return self.model_dump(mode="json", include=chosen, exclude={"experiments", "sweep", "notify"})
