"""Whether a sample still belongs to the project: to its training, and to a prompt of its config."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Generic, TypeVar

from hv15.config import SampleSettings, load_config
from hv15.config.sample_columns import columns_of
from hv15.digest import digest
from hv15.errors import UserError
from hv15.project.checkpoints import earlier_step
from hv15.records.json_values import RecordError, parse_object
from hv15.records.metadata import MADE_FROM
from hv15.records.outputs import enlarged
from hv15.records.paths import ProjectPaths
from hv15.records.rules import Rule
from hv15.records.spec import Spec
from hv15.sample.plan import BASE_SUFFIX, first_set
from hv15.stamp import Stamp, stamp

Value = TypeVar("Value")


class SampleStanding(Enum):
    """How a sample relates to the project as it is now."""

    CURRENT = "current"
    """Made by the project's LoRA, from a prompt of its config; or nothing says otherwise."""
    EARLIER_TRAINING = "earlier training"
    EARLIER_PROMPT = "earlier prompt"
    """The config has a prompt of this name with another text."""
    NOT_IN_CONFIG = "not in the config"


class StandingReader:
    """Knows the project's training and prompts; files are read only when they have changed."""

    def __init__(self, config: Path) -> None:
        self._root = config.parent
        self._asked = _Watched(config, _Asked.of, lambda asked: asked.prompts_file)
        self._trainings: dict[str, tuple[_Watched[str], _Watched[str]]] = {}
        self._steps: dict[tuple[str, int], _Watched[str]] = {}

    def refresh(self) -> bool:
        """Look for changes; return whether there were any."""
        changed = self._asked.refresh()
        for step in self._steps.values():
            changed |= step.refresh()
        for finished, begun in self._trainings.values():
            changed |= finished.refresh() | begun.refresh()
        return changed

    @property
    def asked(self) -> dict[str, str]:
        """The texts of the samples that the config asks for, by name, with those without the LoRA (`.base`) and those
        that are made larger (`.sr`)."""
        found = self._asked.value.prompts if self._asked.value is not None else {}
        return {name: text for name, text in found.items() if name not in SHEETS}

    @property
    def trains(self) -> bool:
        """Whether the project trains a LoRA; it does as long as nothing says otherwise."""
        return self._asked.value is None or self._asked.value.trains

    def of(
        self, experiment: str, name: str, prompt: str, trained: str | None, step: int | None = None
    ) -> SampleStanding:
        """Return how a sample relates to the project.

        Args:
            experiment: "" for the project itself.
            name: of the sample: its prompt's, with `.base` for the one without the LoRA, `.sr` for the larger one.
            prompt: its prompt's text, as the sample records it; "" if it does not.
            trained: digest of the training whose LoRA made it; None: without one, or unknown.
            step: of the kept LoRA that it was sampled with; None for the published one.
        """
        asked = self._asked.value if not experiment else None
        if asked is not None:
            if name not in asked.prompts:
                return SampleStanding.NOT_IN_CONFIG
            if prompt and prompt != asked.prompts[name]:
                return SampleStanding.EARLIER_PROMPT
            step = step or asked.publish_step
        current = self._training(experiment) if step is None else self._after(experiment, step)
        if trained is not None and current is not None and trained != current:
            return SampleStanding.EARLIER_TRAINING
        return SampleStanding.CURRENT

    def _after(self, experiment: str, step: int) -> str | None:
        """The digest of the kept LoRA of a step; while there is none, as for the last step, that of the training."""
        if (experiment, step) not in self._steps:
            self._steps[experiment, step] = _Watched(
                ProjectPaths(self._root, experiment).checkpoint_lora(step), _finished
            )
            self._steps[experiment, step].refresh()
        return self._steps[experiment, step].value or self._training(experiment)

    def _training(self, experiment: str) -> str | None:
        """The digest of the finished training, else of the last one that began; None if neither is known."""
        if experiment not in self._trainings:
            paths = ProjectPaths(self._root, experiment)
            pair = _Watched(paths.trained, _finished), _Watched(paths.spec(Rule.TRAIN), _begun)
            for each in pair:
                each.refresh()
            self._trainings[experiment] = pair
        finished, begun = self._trainings[experiment]
        return finished.value or begun.value


class _Watched(Generic[Value]):
    """The value read from one file; None as long as it is missing or unusable.

    Args:
        beside: returns another file on which a value depends, if there is one.
    """

    def __init__(
        self, path: Path, read: Callable[[Path], Value], beside: Callable[[Value], Path | None] = lambda _: None
    ) -> None:
        self._path, self._read, self._find_beside = path, read, beside
        self._stamp: Stamp | None = None
        self._beside: Path | None = None
        self._stamp_beside: Stamp | None = None
        self.value: Value | None = None

    def refresh(self) -> bool:
        seen, before = stamp(self._path), self.value
        seen_beside = stamp(self._beside) if self._beside is not None else None
        if (seen, seen_beside) != (self._stamp, self._stamp_beside):
            self._stamp, self._stamp_beside = seen, seen_beside
            try:
                self.value = self._read(self._path) if seen is not None else None
            except (KeyError, OSError, RecordError, UserError):
                self.value = None
            if self.value is not None and (beside := self._find_beside(self.value)) != self._beside:
                self._beside, self._stamp_beside = beside, stamp(beside) if beside is not None else None
        return self.value != before


@dataclass(frozen=True)
class _Asked:
    """What the config asks for."""

    prompts: dict[str, str]
    """The texts of its samples, by name; "" for the sheet that compares them."""
    publish_step: int | None
    prompts_file: Path | None = None
    """Where others of these prompts stand."""
    trains: bool = True
    """Whether there is a LoRA of the project's own."""

    @classmethod
    def of(cls, config: Path) -> _Asked:
        settings = load_config(config)
        step = earlier_step(settings.train, settings.train.publish_step)
        trains = bool(settings.datasets)
        return cls(_prompts(settings.sample, trains=trains), step, settings.prompts_file, trains)


SHEETS = (ProjectPaths().contact_sheet.stem, ProjectPaths().sample_grid.stem)
"""The names of what shows samples side by side."""


def _prompts(sample: SampleSettings, *, trains: bool) -> dict[str, str]:
    texts: dict[str, str] = {}
    compared: dict[str, str] = {}
    larger: dict[str, str] = {}
    columns = columns_of(sample, trains=trains)
    for prompt in sample.prompts:
        for name in sample.seeds_of(prompt):
            texts |= {name + column.suffix: prompt.prompt for column in columns}
            if trains and first_set(prompt.with_base, sample.with_base):
                compared[name + BASE_SUFFIX] = prompt.prompt
            if sample.sr_of(prompt) != "off":
                larger |= {enlarged(name + column.suffix): prompt.prompt for column in columns}
    several = len(texts) + len(compared) + len(larger) > 1
    drawn = SHEETS[1:] if len(columns) > 1 else SHEETS[:1] if several else ()
    return texts | dict.fromkeys(drawn, "") | compared | larger


def _finished(trained: Path) -> str:
    """The digest, as in the specs of samples, of the training that made a LoRA file."""
    from hv15.project.metadata import product_metadata

    return digest(parse_object(product_metadata(trained)[MADE_FROM]))


def _begun(spec: Path) -> str:
    """The digest, as in the specs of samples, of the training that a run has planned."""
    return digest(Spec.load(spec).wanted)
