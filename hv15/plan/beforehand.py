"""Whether what later jobs need will do, found out before the first of them: LoRAs, images, patterns, optimizer.

`hv15 check` shows each look; the planning takes those that found nothing wrong as done while what they looked at is
unchanged. Only the optimizer's needs torch, and only if `train.optimizer_args` are given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from hv15.config.train import TrainSettings
from hv15.digest import digest
from hv15.errors import UserError
from hv15.models.weights.fingerprint import model_fingerprint
from hv15.plan.model_sizes import ModelSizes
from hv15.project import Project
from hv15.records.json_values import Json
from hv15.records.problems import ConfigError, Location, Place, Problem, dotted
from hv15.remembered import Memory

VERSION = 2
"""Raised when a look comes to see more than before."""


@dataclass(frozen=True)
class Look:
    """One thing that a later job needs."""

    subject: str
    """What it is, in a word."""
    setting: Location
    """What names it in the config."""
    see: Callable[[], object]
    """Looks at it. Raises UserError if it will not do."""
    depends: Json = None
    """What the outcome depends on; None: it is looked at each time."""
    file: Path | None = None

    @property
    def key(self) -> str | None:
        return None if self.depends is None else digest([VERSION, self.subject, self.depends])


def looks(project: Project) -> Iterator[Look]:
    """All that can be looked at without computing with a model."""
    train, models = project.settings.train, project.settings.models
    yield Look("variant", ("models", "variant"), lambda: _check_variant(project))
    if models.source == "files" and isinstance(tokenizer := project.models.tokenizer, Path):
        yield Look(
            "tokenizer",
            ("models", "tokenizer"),
            lambda: _check_tokenizer(tokenizer),
            project.models.identity("tokenizer") if tokenizer.exists() else None,
            tokenizer,
        )
    if train.optimizer_args:
        versions: list[Json] = [version("torch"), version("bitsandbytes")]
        depends: list[Json] = [train.optimizer_type, repr(train.optimizer_args), *versions]
        yield Look("optimizer", ("train", "optimizer_args"), lambda: _check_optimizer(train), depends)
    yield from _lora_looks(project)
    for number, prompt in enumerate(project.settings.sample.prompts):
        if prompt.image_path:
            file = project.settings.resolve(prompt.image_path)
            setting = ("sample", "prompts", number, "image_path")
            yield _of_file(project, "image", setting, file, _check_image)


def refuse_beforehand(project: Project, *, missing: bool = True) -> None:
    """Look at everything that was not found good before, and remember what is.

    Args:
        missing: whether files that are not there are refused, too.

    Raises:
        ConfigError: something will not do; all of it at once.
    """
    memory = Memory(project.paths.looks, VERSION, "it is looked at again")
    good, problems = set[str](), list[Problem]()
    for look in looks(project):
        key = look.key
        if key is not None and key in memory.entries:
            good.add(key)
            continue
        if look.file is not None and not missing and not look.file.exists():
            continue
        try:
            look.see()
        except UserError as error:
            problems.append(_problem(error, look.setting))
        else:
            if key is not None:
                memory.learn(key, True)
                good.add(key)
    memory.save(keep=good.__contains__)
    if problems:
        raise ConfigError(dict.fromkeys(problems))


def _problem(error: UserError, setting: Location) -> Problem:
    """The problem of a setting, which an error may name itself, with the key below it that is meant."""
    name, _, message = error.message.partition(": ")
    if name == dotted(setting):
        return Problem(message, error.hint, Place(setting=setting))
    if name.startswith(f"{dotted(setting)}."):
        key = name.removeprefix(f"{dotted(setting)}.")
        return Problem(message, error.hint, Place(setting=(*setting, key)))
    return Problem(error.message, error.hint, Place(setting=setting))


def _of_file(
    project: Project, subject: str, setting: Location, file: Path, see: Callable[[Path], object], *depends: Json
) -> Look:
    """A look at one file, which depends on its content."""
    try:
        content = model_fingerprint(file, cache=project.models.fingerprints)
    except UserError:  # missing or damaged, which looking at it tells
        return Look(subject, setting, lambda: see(file), file=file)
    return Look(subject, setting, lambda: see(file), [content, *depends], file)


# -- LoRAs ----------------------------------------------------------------------------------------------------------


def _lora_looks(project: Project) -> Iterator[Look]:
    """The layers that get a LoRA, the one that the training starts from, and those of the samples."""
    from hv15.lora.fit import NetworkSizes, check_lora, check_network_weights, network_sizes

    settings, sizes = project.settings, ModelSizes(project)
    train, sample = settings.train, settings.sample
    try:
        base = project.models.identity("dit")
        _ = sizes.dit
    except UserError:
        return  # the transformer is missing, which has its own error
    if "dit" in sizes.assumed and settings.models.source == "files":
        return  # it is damaged, which has its own error, too

    def network() -> NetworkSizes:
        return network_sizes(
            sizes.dit,
            rank=train.network_dim,
            alpha=train.network_alpha,
            include=train.include_patterns,
            exclude=train.exclude_patterns,
        )

    patterns: list[Json] = [[*train.include_patterns], [*train.exclude_patterns]]
    setting = "include_patterns" if train.include_patterns else "exclude_patterns"
    yield Look("patterns", ("train", setting), network, [base, patterns])
    if train.network_weights:
        file, place = settings.resolve(train.network_weights), ("train", "network_weights")
        wanted: list[Json] = [base, train.network_dim, train.network_alpha, patterns]

        def starts(path: Path) -> None:
            try:
                sought = network()
            except UserError:
                return  # wrong patterns have their own look
            check_network_weights(path, sought)

        yield _of_file(project, "lora", place, file, starts, "start", *wanted)
    named: list[tuple[Location, str]] = [
        (("sample", "loras", number, "path"), lora.path) for number, lora in enumerate(sample.loras)
    ]
    for number, prompt in enumerate(sample.prompts):
        named += [
            (("sample", "prompts", number, "loras", place, "path"), lora.path)
            for place, lora in enumerate(prompt.loras or ())
        ]
    for location, name in named:
        yield _of_file(
            project, "lora", location, settings.resolve(name), lambda path: check_lora(path, sizes.dit), base
        )


# -- the others -----------------------------------------------------------------------------------------------------


def _check_variant(project: Project) -> None:
    """A checkpoint that is to be downloaded must have been published."""
    from hv15.models.variants import VARIANTS

    models = project.settings.models
    chosen = VARIANTS.get(models.variant)
    if models.source == "hub" and chosen is not None and not chosen.published:
        raise UserError(
            f"{chosen.name} was announced, but it had not been published when this version of hv15 was made",
            hint=f"use {chosen.base}; if it is there meanwhile, download it yourself and set models.source to files",
        )


def _check_tokenizer(path: Path) -> None:
    from hv15.models.tokenizer import load_qwen_tokenizer

    load_qwen_tokenizer(path)


def _check_image(path: Path) -> None:
    """Decode a first image, as the sampling will."""
    from hv15.data.buckets import check_shape
    from hv15.data.images import read_image

    height, width = read_image(path).shape[:2]
    try:
        check_shape(height, width)
    except UserError as error:
        raise UserError(f"{path}: {error.message}", hint=error.hint) from error


def _check_optimizer(train: TrainSettings) -> None:
    from hv15.train.optimizers import check_optimizer, optimizer_class

    try:
        optimizer_class(train.optimizer_type)
    except UserError:
        return  # this machine lacks the package, and the training may run on another
    check_optimizer(train.optimizer_type, train.optimizer_args)
