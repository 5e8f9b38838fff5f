"""What `hv15 sample` makes, as a table: a row for each prompt and seed, a column for each LoRA and strength.

All samples of a row begin from the same noise. Where nothing is compared, there is one column. Loads no torch.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hv15.config import PromptSettings
from hv15.config.sample import name_from_words
from hv15.config.sample_columns import COMMON, NO_LORA
from hv15.digest import short
from hv15.errors import UserError
from hv15.models.weights.fingerprint import model_fingerprint
from hv15.project import Project
from hv15.project.grids import row_titles
from hv15.records.outputs import OUTPUT_TYPES, enlarged
from hv15.records.paths import ProjectPaths, copy_of_step
from hv15.sample.prompts import LoRAFile, SampleSpec
from hv15.weighted_file import read_weighted_file

_COPY = re.compile(r".*step[-_]?0*(?P<step>\d+)", re.IGNORECASE)
_AUTOMATIC = re.compile(r"(?P<words>.+)-[0-9a-f]{8}")


@dataclass(frozen=True)
class Compared:
    """What differs between the columns."""

    loras: Sequence[str] = ()
    """FILE or FILE:STRENGTH: each is used in a column of its own, beside those that all samples have."""
    steps: Sequence[int] = ()
    """The copies of the project's LoRA that its training has kept, in the same way."""
    strengths: Sequence[float] = ()
    """Each makes a column: factors for the strength of the compared LoRA or, if none is compared, of all."""

    @property
    def is_table(self) -> bool:
        """Whether there is anything to compare."""
        return bool(self.loras or self.steps or len(self.strengths) > 1)


@dataclass(frozen=True)
class ComparedColumn:
    """What the samples of one column have in common."""

    label: str = ""
    """"" if nothing is compared."""
    lora: LoRAFile | None = None
    """Used in addition to those of the sample."""
    strength: float = 1.0
    """Factor for the strength of that LoRA or, if there is none, of all."""

    def of(self, spec: SampleSpec) -> SampleSpec:
        """Return a row's sample in this column. A LoRA at strength 0 is left out, which is the same sample."""
        if self.lora is None and self.strength == 1.0:
            return spec
        kept, scaled = (spec.loras, (self.lora,)) if self.lora is not None else ((), spec.loras)
        loras = (*kept, *(replace(each, multiplier=each.multiplier * self.strength) for each in scaled))
        return replace(spec, loras=tuple(each for each in loras if each.multiplier))


@dataclass(frozen=True)
class ComparedRow:
    """One prompt and seed."""

    title: str
    samples: tuple[SampleSpec, ...]
    """One for each column."""


@dataclass(frozen=True)
class Table:
    """All samples of a call, each once."""

    columns: tuple[str, ...]
    """Their labels."""
    rows: tuple[ComparedRow, ...]

    def samples(self) -> list[SampleSpec]:
        """Return the samples, each once: column by column, so that LoRAs change seldom."""
        every = (row.samples[number] for number in range(len(self.columns)) for row in self.rows)
        return [*{spec.name: spec for spec in every}.values()]

    def viewable(self) -> Table:
        """Return the rows of which people can see something."""
        rows = tuple(row for row in self.rows if OUTPUT_TYPES[row.samples[0].output_type][0].is_decoded)
        return replace(self, rows=rows)

    def by_seed(self) -> Table:
        """Return the same samples with a row for each prompt and a column for each seed.

        That is possible if nothing is compared, and each prompt has the same seeds; else the table is as before.
        """
        if self.columns != ("",):
            return self
        prompts: dict[str, dict[int, SampleSpec]] = {}
        for row in self.rows:
            (spec,) = row.samples
            seeds = prompts.setdefault(replace(spec, name="", seed=0).to_text(), {})
            if spec.seed in seeds:
                return self
            seeds[spec.seed] = spec
        seeds_of_all = {tuple(seeds) for seeds in prompts.values()}
        if len(seeds_of_all) != 1:
            return self
        labels = tuple(f"seed {seed}" for seed in seeds_of_all.pop())
        samples = [tuple(seeds.values()) for seeds in prompts.values()]
        return Table(labels, tuple(ComparedRow(each[0].prompt, each) for each in samples))


def make_table(project: Project, compared: Compared) -> Table:
    """Return what a request's project samples.

    Each sample's name says prompt, seed and column, and ends in a digest of everything.

    Raises:
        UserError: a file or a step that is compared is not there; or as `Project.samples`.
    """
    columns = _columns(project, compared)
    if compared.strengths and not (
        compared.loras or compared.steps or any(each.loras for each in project.samples.values())
    ):
        raise UserError("--strength without a LoRA", hint="name LoRAs by --lora, --compare or --checkpoint")
    names = {prompt.name: _words(prompt) for prompt in project.settings.sample.prompts}
    titles = row_titles(project.samples)
    rows = []
    for spec in project.samples.values():
        words = names[spec.name.partition(".")[0]]
        rows.append(ComparedRow(titles[spec.name], tuple(_named(project, words, column, spec) for column in columns)))
    return Table(tuple(column.label for column in columns), tuple(rows))


def enlarged_samples(project: Project, table: Table) -> dict[str, SampleSpec]:
    """Return what super resolution makes of the samples of a project's table, by their names.

    Each name is that of the small sample and ends in a digest of its own.

    Raises:
        UserError: as `Project.enlarged`.
    """
    text, found = project.texts.settings_digest, dict[str, SampleSpec]()
    for row, name in zip(table.rows, project.samples, strict=True):
        large = project.enlarged.get(name)
        for small in row.samples if large is not None else ():
            assert large is not None
            spec = replace(large, loras=small.loras) if project.settings.sample.sr_with_loras else large
            low = small.denoising(None, text)
            digest = short([spec.denoising(None, text, low), spec.decoding(None, text, low)])[:8]
            found[small.name] = replace(spec, name=f"{enlarged(small.name)}-{digest}")
    return found


def _named(project: Project, words: str, column: ComparedColumn, row: SampleSpec) -> SampleSpec:
    spec, text = column.of(row), project.texts.settings_digest
    digest = short([spec.denoising(None, text), spec.decoding(None, text)])[:8]
    label = "" if column.label in (NO_LORA, COMMON) else re.sub(r"[^A-Za-z0-9.]+", "-", column.label).strip("-.")[:40]
    return replace(spec, name="-".join(filter(None, (words, f"seed{spec.seed}", label, digest))))


def _words(prompt: PromptSettings) -> str:
    """What the names of a prompt's files begin with: its own name, or its first words."""
    words = name_from_words(prompt.prompt)
    match = _AUTOMATIC.fullmatch(prompt.name)
    return words if match and match["words"] == words else prompt.name


def _columns(project: Project, compared: Compared) -> list[ComparedColumn]:
    """Return the columns: each LoRA at each strength, and the one without them at most once."""
    loras = [*_files(project, compared.loras), *_copies(project, compared.steps)]
    names: Sequence[str] = _labels([Path(lora.path) for lora in loras])
    without = COMMON if loras and any(each.loras for each in project.samples.values()) else NO_LORA
    found: dict[str, ComparedColumn] = {}
    for name, lora in zip(names, loras, strict=True) if loras else [("", None)]:
        for strength in compared.strengths or (1.0,):
            label = name
            if compared.strengths:
                label = f"{name} x {strength:g}" if name else f"strength {strength:g}"
            column = ComparedColumn(label if strength else without, lora, strength)
            found.setdefault(column.label, column)
    return [*found.values()]


def _files(project: Project, words: Sequence[str]) -> Iterator[LoRAFile]:
    for each in words:
        path, strength = read_weighted_file(each)
        yield _lora(project, path, 1.0 if strength is None else strength, "--compare")


def _copies(project: Project, steps: Sequence[int]) -> Iterator[LoRAFile]:
    """The kept copies of the project's LoRA after these steps."""
    for step in steps:
        path = project.paths.checkpoints / copy_of_step(step)
        path = path if path.exists() else project.paths.checkpoint_lora(step)
        if not path.exists():
            there = sorted(kept_steps(project.paths))
            listed = f"there are {', '.join(map(str, there))}" if there else "none is kept"
            raise UserError(
                f"--checkpoint {step}: the LoRA after that step is not kept in {project.paths.training}: {listed}",
                hint="name one of these, or LoRA files by --compare; train.save_every_n_steps keeps copies",
            )
        yield _lora(project, path, 1.0, f"--checkpoint {step}")


def kept_steps(paths: ProjectPaths) -> Iterator[int]:
    """Yield the steps of which a project's training has kept a copy of its LoRA, whatever it was trained with."""
    for path in paths.checkpoints.glob("*.safetensors"):
        match = _COPY.fullmatch(path.stem)
        if match and path.name == copy_of_step(int(match["step"])):
            yield int(match["step"])


def _lora(project: Project, path: Path, strength: float, option: str) -> LoRAFile:
    path = path.absolute()
    if not path.is_file():
        raise UserError(f"{option}: {path}: no such file", hint="correct the path")
    return LoRAFile(str(path), model_fingerprint(path, cache=project.models.fingerprints), strength)


def _labels(files: Sequence[Path]) -> list[str]:
    """Return a short name for each file: its step or its name; with its folder or a number where two would be equal."""
    found = [_label(path) for path in files]
    twice = {label for label, count in Counter(found).items() if count > 1}
    found = [
        f"{path.parent.name}/{label}" if label in twice else label for path, label in zip(files, found, strict=True)
    ]
    seen = Counter[str]()
    labels = []
    for label in found:
        seen[label] += 1
        labels.append(label if seen[label] == 1 else f"{label} ({seen[label]})")
    return labels


def _label(path: Path) -> str:
    match = _COPY.fullmatch(path.stem)
    return f"step {int(match['step'])}" if match else path.stem
