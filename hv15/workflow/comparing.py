"""The stage that compares the experiments of a project with one another, and why it runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from hv15.comparison.samples import noise_of
from hv15.comparison.settings import differing, named_settings
from hv15.config.experiments import Experiment
from hv15.digest import canonical, digest
from hv15.project import Project
from hv15.project.metadata import KINDS
from hv15.project.products import shown_samples
from hv15.records import formats
from hv15.records.comparison import ComparisonDetails
from hv15.records.comparison_paths import ComparisonPaths
from hv15.records.json_values import Json, JsonObject
from hv15.records.outputs import OUTPUT_TYPES
from hv15.records.paths import ProjectPaths
from hv15.records.rules import Rule
from hv15.workflow.differences import first_few
from hv15.workflow.made_from import MadeFromReader
from hv15.workflow.stage import Stage, compare

LEAST = 2
"""Experiments that can be compared."""
OF_SAMPLES = ("sample", "convert")
"""Sections that no record of a training tells as they are now."""
_OF_NOISE = (
    *("task", "sample.prompts", "sample.prompts_file", "sample.seed", "sample.seeds", "sample.video"),
    *("sample.strengths", "sample.compare", "sample.output_type"),
)
"""The beginnings of settings without which the experiments have samples of the same names from the same noise."""


def is_compared(experiments: Collection[str]) -> bool:
    """Whether there are enough experiments to compare."""
    return len(experiments) >= LEAST


def asks_for_comparison(targets: Collection[str]) -> bool:
    """Whether a target is the comparison, or one of its files."""
    files = {str(file) for file in comparison_files(ProjectPaths().comparison(), has_samples=True)}
    return bool({Rule.COMPARISON, *files} & {*targets})


def comparison_files(paths: ComparisonPaths, *, has_samples: bool) -> list[Path]:
    """Return the files of a comparison that are always made."""
    return [paths.page, paths.table, paths.groups, paths.latex, *([paths.sheet, paths.film] if has_samples else [])]


def have_common_samples(base: Project, experiments: Mapping[str, Experiment]) -> bool:
    """Whether all experiments have decoded samples from the same noise, so that these stand side by side.

    It is read from the config alone, since the rules have to know it before anything is planned.
    """
    sample = base.settings.sample
    types = [prompt.output_type or sample.output_type for prompt in sample.prompts]
    is_seen = any(OUTPUT_TYPES[each][0].is_decoded for each in types)
    changed = (name for each in experiments.values() for name in each.values)
    return is_seen and not any(name.startswith(_OF_NOISE) or name == "datasets" for name in changed)


def comparison_stage(base: Project, experiments: Sequence[Project], reader: MadeFromReader) -> Stage:
    """Return the stage.

    Args:
        experiments: in the order of the config.

    Raises:
        UserError: a model, a dataset, an image or a LoRA that one of them names cannot be used.
    """
    has_samples = have_common_samples(base, base.experiments)
    details = ComparisonDetails(tuple(each.run for each in experiments), _settings_of_samples(experiments), has_samples)
    trainings: list[Json] = [[each.run, each.trained_digest, _samples(each)] for each in experiments]
    settings: JsonObject = dict(details.settings)
    wanted: JsonObject = {"format": formats.COMPARISON, "experiments": trainings, "settings": settings}
    products = comparison_files(ProjectPaths().comparison(), has_samples=has_samples)
    told = [reader.made_from(base.root / product) for product in products if product.suffix in KINDS]
    recorded = next((each for each in told if each != wanted), told[0])
    found = compare(base.root, products, recorded, wanted)
    inputs = {"results": [file for each in experiments for file in _results(each)]}
    return Stage(Rule.COMPARISON, tuple(products), wanted, found, recorded, inputs, details.to_json())


def comparison_changes(old: JsonObject, new: JsonObject) -> Iterator[str]:
    """How two comparisons of experiments differ: in which of them, and in what of these."""
    before, now = _by_experiment(old), _by_experiment(new)
    yield from first_few([name for name in now if name not in before], "{} is new")
    yield from first_few([name for name in before if name not in now], "{} is no longer an experiment")
    if old.get("format") != new.get("format"):
        yield "hv15 compares experiments in a new way"
    both = [name for name in now if name in before]
    trained = [name for name in both if now[name][:1] != before[name][:1]]
    yield from first_few(trained, "{} has another LoRA")
    yield from first_few([name for name in both if name not in trained and now[name] != before[name]], "samples of {}")
    if before.keys() == now.keys() and [*before] != [*now]:
        yield "the experiments are in another order"


def _by_experiment(made_from: JsonObject) -> dict[str, list[Json]]:
    """What a comparison was made from, by experiment: LoRA and samples."""
    listed = made_from.get("experiments")
    entries = [each for each in listed if isinstance(each, list) and each] if isinstance(listed, list) else []
    return {str(name): rest for name, *rest in entries}


def _results(experiment: Project) -> list[Path]:
    """What is compared of an experiment: its LoRA, which comes after all that belongs to it, or its samples."""
    paths = ProjectPaths(run=experiment.run)
    if experiment.settings.datasets:
        return [paths.lora]
    return [*shown_samples(experiment.samples, paths).values()]


def _samples(experiment: Project) -> JsonObject:
    """What its samples are made from."""
    trained, text = experiment.trained_digest, experiment.texts.settings_digest
    return {digest(noise_of(each))[:16]: digest(each.decoding(trained, text)) for each in experiment.samples.values()}


def _settings_of_samples(experiments: Iterable[Project]) -> dict[str, JsonObject]:
    """The settings of samples in which the experiments differ."""
    found: dict[str, JsonObject] = {}
    known: dict[str, JsonObject] = {}  # those of 100 experiments are mostly the same
    for each in experiments:
        sections = each.settings.dump(OF_SAMPLES)
        key = canonical(sections)
        if key not in known:
            known[key] = named_settings(sections, OF_SAMPLES)
        found[each.run] = known[key]
    names = differing([*known.values()])
    return {run: {name: settings.get(name) for name in names} for run, settings in found.items()}
