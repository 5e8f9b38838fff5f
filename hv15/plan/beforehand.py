"""Whether what later jobs need can be used, checked before the first of them: LoRAs, images, patterns, optimizer.

`hv15 check` shows the outcome of each check. The planning skips a check that found nothing wrong until what it depends
on changes. Only the optimizer's check needs torch: with `train.optimizer_args`, or a class by its path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from hv15.config.loras import LoraSettings, SampledLoraSettings
from hv15.config.train import TrainSettings
from hv15.config.training.network import NetworkSettings
from hv15.config.training.optimizer import CLASSES, distribution_of
from hv15.digest import digest
from hv15.errors import UserError
from hv15.lora.about import thumbnail
from hv15.models.weights.fingerprint import model_fingerprint
from hv15.plan.devices import find_device
from hv15.plan.model_sizes import ModelSizes
from hv15.project import Project
from hv15.records.json_values import Json
from hv15.records.problems import ConfigError, Location, Place, Problem, dotted
from hv15.remembered import Memory

if TYPE_CHECKING:
    from hv15.lora.reach import Reach
    from hv15.lora.sizes import NetworkSizes

VERSION = 3
"""Raised when a check finds more than before."""


@dataclass(frozen=True)
class EarlyCheck:
    """One thing that a later job needs."""

    subject: str
    """What is checked, in a word."""
    setting: Location
    """The setting that names it."""
    check: Callable[[], object]
    """Raises UserError if it cannot be used."""
    depends: Json = None
    """What the outcome depends on; None: it is checked each time."""
    file: Path | None = None

    @property
    def key(self) -> str | None:
        return None if self.depends is None else digest([VERSION, self.subject, self.depends])


def early_checks(project: Project) -> Iterator[EarlyCheck]:
    """Everything that can be checked without computing with a model."""
    train, models = project.settings.train, project.settings.models
    yield EarlyCheck("variant", ("models", "variant"), lambda: _check_variant(project))
    if (gpu := project.settings.runtime.planned_gpu) is not None:
        yield EarlyCheck("gpu", ("runtime", "planned_gpu"), lambda: find_device(gpu, "runtime.planned_gpu"), gpu)
    if models.source == "files" and isinstance(tokenizer := project.models.tokenizer, Path):
        yield EarlyCheck(
            "tokenizer",
            ("models", "tokenizer"),
            lambda: _check_tokenizer(tokenizer),
            project.models.identity("tokenizer") if tokenizer.exists() else None,
            tokenizer,
        )
    if train.optimizer_args or train.optimizer_type not in CLASSES:
        yield _optimizer_check(train)
    yield from _lora_checks(project)
    for number, prompt in enumerate(project.settings.sample.prompts):
        if prompt.image_path:
            file = project.settings.resolve(prompt.image_path)
            setting = ("sample", "prompts", number, "image_path")
            yield _file_check(project, "image", setting, file, _check_image)
    yield from _preview_check(project)


class PassedChecks:
    """What was found good of a project and of those of its experiments that are planned together.

    Args:
        memory: the file that keeps it between plans.
    """

    def __init__(self, memory: Path) -> None:
        self._memory = Memory(memory, VERSION, "it is checked again")
        self._good: set[str] = set()

    def refuse(self, project: Project, *, missing: bool = True) -> None:
        """Check everything that is not yet known to be good.

        Args:
            missing: whether missing files are refused, too.

        Raises:
            ConfigError: something cannot be used; all of it at once.
        """
        problems = list[Problem]()
        for early in early_checks(project):
            key = early.key
            if key is not None and key in self._memory.entries:
                self._good.add(key)
                continue
            if early.file is not None and not missing and not early.file.exists():
                continue
            try:
                early.check()
            except UserError as error:
                found = _problem(error, early.setting)
                problems.append(replace(found, place=project.settings.place_of(found.place.setting)))
            else:
                if key is not None:
                    self._memory.learn(key, True)
                    self._good.add(key)
        if problems:
            raise ConfigError(dict.fromkeys(problems))

    def save(self) -> None:
        """Keep what was found good now, and forget what nothing asked for."""
        self._memory.save(keep=self._good.__contains__)


@contextmanager
def remembered_checks(project: Project) -> Iterator[PassedChecks]:
    """Give what was found good of a project, to which its experiments add; it is saved at the end, also of an error."""
    passed = PassedChecks(project.paths.passed_checks)
    try:
        yield passed
    finally:
        passed.save()


def refuse_beforehand(project: Project, *, missing: bool = True) -> None:
    """Check everything that is not yet known to be good, and remember what is.

    Args:
        missing: whether missing files are refused, too.

    Raises:
        ConfigError: something cannot be used; all of it at once.
    """
    with remembered_checks(project) as passed:
        passed.refuse(project, missing=missing)


def _problem(error: UserError, setting: Location) -> Problem:
    """Turn an error into a problem of a setting, or of the one in its section or below it that the error names."""
    name, _, message = error.message.partition(": ")
    if name == dotted(setting):
        return Problem(message, error.hint, Place(setting=setting))
    if name.startswith(f"{dotted(setting)}."):
        key = name.removeprefix(f"{dotted(setting)}.")
        return Problem(message, error.hint, Place(setting=(*setting, key)))
    section, _, key = name.partition(".")
    if section == setting[0] and key in TrainSettings.model_fields:
        return Problem(message, error.hint, Place(setting=(section, key)))
    return Problem(error.message, error.hint, Place(setting=setting))


def _file_check(
    project: Project, subject: str, setting: Location, file: Path, check: Callable[[Path], object], *depends: Json
) -> EarlyCheck:
    """The check of one file, which depends on its content."""
    try:
        content = model_fingerprint(file, cache=project.models.fingerprints)
    except UserError:  # missing or damaged, which the check itself reports
        return EarlyCheck(subject, setting, lambda: check(file), file=file)
    return EarlyCheck(subject, setting, lambda: check(file), [content, *depends], file)


# -- LoRAs ----------------------------------------------------------------------------------------------------------


def _lora_checks(project: Project) -> Iterator[EarlyCheck]:
    """The layers that get a LoRA, the files that the training uses, the products, and the LoRAs of the samples."""
    from hv15.lora.fit import check_lora, check_network_weights
    from hv15.lora.publishing import check_formats
    from hv15.lora.rates import rates_of_layers
    from hv15.lora.reach import Reach
    from hv15.lora.sizes import settings_network

    settings, sizes = project.settings, ModelSizes(project)
    train, sample = settings.train, settings.sample
    try:
        base = project.models.identity("dit")
        _ = sizes.dit
    except UserError:
        return  # the transformer is missing, which has its own error
    if "dit" in sizes.assumed and settings.models.source == "files":
        return  # it is damaged, which has its own error, too
    start = settings.resolve(train.network_weights) if train.network_weights else None

    def network() -> NetworkSizes:
        return settings_network(sizes.dit, settings)

    def check_products() -> None:
        if (layers := _without_error(network)) is not None:
            check_formats(layers, settings.convert.formats)

    def check_rates() -> None:
        if (layers := _without_error(network)) is not None:
            rates_of_layers([*layers.layers], train.layer_rates, train.learning_rate)

    def check_start(path: Path) -> None:
        if (layers := network() if train.dim_from_weights else _without_error(network)) is not None:
            check_network_weights(path, layers)

    wanted: list[Json] = [base, repr(train.model_dump(include={*NetworkSettings.model_fields}))]  # in the order given
    from_file = train.dim_from_weights  # then the layers depend on the file, too
    if not from_file:
        setting = "include_patterns" if train.include_patterns else "exclude_patterns"
        yield EarlyCheck("patterns", ("train", setting), network, wanted)
    if train.learning_rate_patterns:
        rates: list[Json] = [*wanted, [*train.learning_rate_patterns]]
        place = ("train", "learning_rate_patterns")
        yield EarlyCheck("learning rates", place, check_rates, None if from_file else rates)
    if train.network_type != "lora" and settings.convert.formats:
        formats: list[Json] = [*wanted, *settings.convert.formats]
        yield EarlyCheck("formats", ("convert", "formats"), check_products, None if from_file else formats)
    if start is not None:
        yield _file_check(project, "lora", ("train", "network_weights"), start, check_start, "start", *wanted)
    if train.continue_from is not None:
        yield from _start_check(project, wanted, network)
    if sample.sr_with_loras and "sr_dit" in settings.roles:
        yield from _enlarging_check(project, sizes, network, None if from_file else wanted)
    named: list[tuple[Location, LoraSettings]] = [
        (("train", "base_weights", number), lora) for number, lora in enumerate(train.base_weights)
    ]
    named += [(("sample", "loras", number), lora) for number, lora in enumerate(sample.loras)]
    named += [(("sample", "compare", number), lora) for number, lora in enumerate(sample.compare)]
    for number, prompt in enumerate(sample.prompts):
        named += [
            (("sample", "prompts", number, "loras", place), lora) for place, lora in enumerate(prompt.loras or ())
        ]
    for location, lora in named:
        file = settings.resolve(lora.path)
        yield _file_check(project, "lora", (*location, "path"), file, lambda path: check_lora(path, sizes.dit), base)
        if isinstance(lora, SampledLoraSettings) and (reach := Reach.from_settings(lora)).to_json():
            check = partial(_check_reach, reach=reach, setting=location)
            yield _file_check(project, "lora layers", location, file, check, dotted(location), reach.to_json())


def _enlarging_check(
    project: Project, sizes: ModelSizes, network: Callable[[], NetworkSizes], wanted: list[Json] | None
) -> Iterator[EarlyCheck]:
    """The trained LoRA in super resolution (`sample.sr_with_loras`); the network depends on `wanted`."""
    from hv15.lora.sizes import trainable_layers

    setting = ("sample", "sr_with_loras")

    def check() -> None:
        if not project.settings.datasets or (layers := _without_error(network)) is None:
            return
        there = trainable_layers(sizes.sr_dit)
        missing = [name for name in layers.layers if name.startswith("double_blocks.") and name not in there]
        if missing:
            raise UserError(
                f"{dotted(setting)}: {len(missing)} of {len(layers.layers)} layers of the trained LoRA are not in the "
                f"transformer of super resolution, first {missing[0]}",
                hint="set it to false: the LoRA then changes the small video alone, as in the official program",
            )

    try:
        depends: Json = None if wanted is None else [project.models.identity("sr_dit"), *wanted]
    except UserError:
        return  # it is missing, which has its own error
    yield EarlyCheck("large lora", setting, check, depends)


def _check_reach(path: Path, *, reach: Reach, setting: Location) -> None:
    """Patterns and ranges of blocks must be those of layers that a LoRA file changes."""
    from hv15.lora.outline import changed_layers

    try:
        layers = changed_layers(path)
    except UserError:
        return  # a missing or damaged file has its own check
    try:
        reach.layers(layers)
    except UserError as error:
        raise UserError(f"{dotted(setting)}.{error.message}", hint=error.hint) from error


def _without_error(network: Callable[[], NetworkSizes]) -> NetworkSizes | None:
    """Return the sizes of the network; None if the settings that choose them are wrong, which has its own check."""
    try:
        return network()
    except UserError:
        return None


def _start_check(project: Project, wanted: list[Json], network: Callable[[], NetworkSizes]) -> Iterator[EarlyCheck]:
    """The check of what `train.continue_from` names."""
    from hv15.lora.fit import check_network_weights
    from hv15.train.origin import LORA, find_origin, refuse_other_optimizer

    train, setting = project.settings.train, ("train", "continue_from")

    def check() -> None:
        if (origin := project.start) is None:
            return
        place = find_origin(origin, project.paths.training, project.settings.resolve(train.continue_from or ""))
        if place is None:
            return  # only a finished LoRA tells of it; if that is to be trained again, the training says so
        try:
            layers = network()
        except UserError:
            return  # wrong patterns have their own check
        try:
            check_network_weights(place / LORA if place.is_dir() else place, layers)
        except UserError as error:
            raise UserError(f"{dotted(setting)}: {error.message}", hint=error.hint) from error
        refuse_other_optimizer(origin, place, train.optimizer_type)

    try:
        _ = project.spec_without_start
    except UserError:
        return  # a dataset or a file cannot be used, which has its own error
    depends: Json = None
    with suppress(UserError):  # the check itself says so
        start = project.start
        depends = [None if start is None else start.to_json(), train.optimizer_type, *wanted]
    yield EarlyCheck("start", setting, check, depends)


# -- the others -----------------------------------------------------------------------------------------------------


def _check_variant(project: Project) -> None:
    """A checkpoint that is to be downloaded must have been published."""
    from hv15.models.variants import VARIANTS

    models = project.settings.models
    chosen = VARIANTS.get(models.variant)
    if models.source == "hub" and chosen is not None and not chosen.published:
        raise UserError(
            f"{chosen.name} was announced, but it had not been published when this version of hv15 was made",
            hint=f"use {chosen.base}; if it is published by now, download it yourself and set models.source to files",
        )


def _check_tokenizer(path: Path) -> None:
    from hv15.models.tokenizer import load_qwen_tokenizer

    load_qwen_tokenizer(path)


def _preview_check(project: Project) -> Iterator[EarlyCheck]:
    """The image that copies of the trained LoRA show, unless the workflow itself may make it."""
    settings = project.settings
    preview = settings.convert.preview
    if not (preview and settings.datasets and settings.convert.formats):
        return
    file = settings.resolve(preview)
    if not file.is_relative_to(project.paths.results):
        yield _file_check(project, "preview", ("convert", "preview"), file, thumbnail)


def _check_image(path: Path) -> None:
    """Decode a first image, as the sampling will."""
    from hv15.data.buckets import check_shape
    from hv15.data.images import read_image

    height, width = read_image(path).shape[:2]
    try:
        check_shape(height, width)
    except UserError as error:
        raise UserError.at(path, error.message, hint=error.hint) from error


def _optimizer_check(train: TrainSettings) -> EarlyCheck:
    """It depends on the package with the optimizer's class; where its version is not known, it is done each time."""
    setting = "optimizer_args" if train.optimizer_args else "optimizer_type"
    rates = [train.learning_rate, train.loraplus_lr_ratio, train.scale_weight_norms]
    try:
        versions: list[Json] = [version("torch"), version(distribution_of(train.optimizer_type))]
        depends: Json = [train.optimizer_type, repr(train.optimizer_args), *rates, *versions]
    except PackageNotFoundError:
        depends = None
    return EarlyCheck("optimizer", ("train", setting), lambda: _check_optimizer(train), depends)


def _check_optimizer(train: TrainSettings) -> None:
    from hv15.train.optimizer_classes import optimizer_class
    from hv15.train.optimizer_packages import MissingPackage
    from hv15.train.optimizers import check_optimizer

    try:
        optimizer_class(train.optimizer_type)
    except MissingPackage:
        return  # this machine lacks the package, and the training may run on another
    check_optimizer(train)
