"""Where a project's model files are, and the identities by which they enter the digests.

The identity of a file that a person gives is its fingerprint. Files that the workflow makes or downloads do not exist
when it is planned, so their identity is declared: the demo's recipe version, or repository, revision and path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path

from hv15.choices import QWEN, ROLES, Role
from hv15.config import Settings
from hv15.demo.layout import DEMO_FILES, DEMO_OUTPUTS, DEMO_VERSION, ENLARGES_TO
from hv15.digest import short
from hv15.errors import UserError, of_the_system
from hv15.models.facts import CheckpointFacts, choose_variant, describe
from hv15.models.hub import HubFile, downloaded_identity, hub_files, super_resolution_of
from hv15.models.super_resolution import (
    SUPER_RESOLUTIONS,
    SuperResolution,
    named_resolution,
    upsampler_resolution,
)
from hv15.models.variants import FoundVariant, detect_variant
from hv15.models.weights.checkpoint import open_checkpoint
from hv15.models.weights.fingerprint import FingerprintCache, model_fingerprint
from hv15.records.problems import ConfigError, Place, Problem
from hv15.remote_paths import NOT_FETCHED, is_remote


def _error(role: Role, message: str, hint: str) -> ConfigError:
    return ConfigError([Problem(message, hint, Place(setting=("models", role)))])


_NO_BRACES = "choose a folder without { and } in its name, or a link to it that has none"


@dataclass(frozen=True)
class ModelFiles:
    """The files of one project."""

    settings: Settings
    fingerprints: FingerprintCache
    own: Mapping[Role, Path] = field(default_factory=dict)
    """Files that a command names instead of the demo's or downloaded ones."""
    sizes: dict[tuple[Role, Path], object] = field(default_factory=dict, compare=False, repr=False)
    """What was read of the sizes of the models (`hv15.plan.model_sizes`)."""

    def path(self, role: Role) -> Path:
        """The file or folder of a model, there or still to be made.

        Raises:
            ConfigError: the config names no file for the role.
        """
        models = self.settings.models
        if role in self.own:
            return self.own[role]
        if models.source == "demo":
            return self.settings.resolve(models.directory) / DEMO_FILES[role]
        if models.source == "hub":
            return self._hub_file(role).local
        given = getattr(models, role)
        if given is None:
            raise _error(
                role,
                "is not set, but it is needed here",
                "set it to the file's path, or models.source to hub to download it",
            )
        return self.settings.resolve(given)

    @property
    def tokenizer(self) -> Path | str:
        """The tokenizer's folder or tokenizer.json, or its name on the Hub.

        It is taken for a name if it has the form `owner/name` with "qwen" in it, there is no folder `owner`, and no
        other model's path begins with `owner`.
        """
        models, place = self.settings.models, self.path("tokenizer")
        name = re.fullmatch(r"([\w.-]+)/[\w.-]+", models.tokenizer)
        if models.source != "files" or name is None or "qwen" not in name[0].lower():
            return place
        others = [models.directory, *(getattr(models, role) or "" for role in ROLES if role != "tokenizer")]
        is_folder = place.parent.exists() or any(f"{other}/".startswith(f"{name[1]}/") for other in others)
        return place if is_folder else models.tokenizer

    def check(self, roles: Iterable[Role] | None = None) -> None:
        """Check that every file of some roles is there, or will be made.

        Args:
            roles: None: those that the project needs.

        Raises:
            ConfigError: files are missing; all of them at once.
        """
        problems = self.folder_problems()
        for role in self.settings.roles if roles is None else roles:
            try:
                self.identity(role)
            except ConfigError as error:
                problems += error.problems
            except (UserError, OSError) as error:
                found = of_the_system(error) if isinstance(error, OSError) else error
                problems.append(Problem(found.message, found.hint, Place(setting=("models", role))))
        if problems:
            raise ConfigError(problems)

    def folder_problems(self) -> list[Problem]:
        """Return what is wrong with the name of the folder in which the workflow makes models: a rule names it."""
        folder, root = self.settings.resolve(self.settings.models.directory), self.settings.root
        name = str(folder.relative_to(root) if folder.is_relative_to(root) else folder)
        if self.settings.models.source == "files" or not set(name) & set("{}"):
            return []
        found = f"{name}: {{ }} in a name is a placeholder of Snakemake"
        return [Problem(found, _NO_BRACES, Place(setting=("models", "directory")))]

    def identity(self, role: Role) -> str:
        """What stands for the model in a digest.

        Raises:
            ConfigError: the file is missing.
            UserError: it is not a checkpoint.
        """
        source = "files" if role in self.own else self.settings.models.source
        if source == "demo":
            return f"demo:{DEMO_VERSION}:{role}"
        if source == "hub":
            return self._hub_file(role).identity
        path = self.path(role)
        if role == "tokenizer" and isinstance(self.tokenizer, str):
            return f"hub:{self.tokenizer}"
        if not path.exists():
            given = getattr(self.settings.models, role)
            if isinstance(given, str) and is_remote(given):
                raise _error(role, f"{given} is not copied to this machine yet", NOT_FETCHED)
            hint = "correct the path in config.yaml, or set models.source to hub to download the file"
            hint += f"; a name on the Hub looks like {QWEN}" if role == "tokenizer" else ""
            raise _error(role, f"{path} does not exist", hint)
        if role == "tokenizer":
            files = sorted(path.glob("*.json")) + sorted(path.glob("*.txt")) if path.is_dir() else [path]
            return short([[file.name, sha256(file.read_bytes()).hexdigest()] for file in files])
        return model_fingerprint(path, cache=self.fingerprints)

    def made(self, role: Role) -> list[Path]:
        """The files of a role that the workflow itself makes or downloads; none when a person gave them."""
        models = self.settings.models
        if role not in self.settings.roles or role in self.own:
            return []
        if models.source == "demo":
            folder = self.settings.resolve(models.directory)
            return [folder / name for name in DEMO_OUTPUTS if name.startswith(DEMO_FILES[role])]
        return list(self._hub_file(role).targets) if models.source == "hub" else []

    @property
    def copied(self) -> list[Path]:
        """The files of the demo, which are copied together; experiments may need some that the base config does not."""
        folder = self.settings.resolve(self.settings.models.directory)
        return [folder / name for name in DEMO_OUTPUTS]

    def downloaded(self, role: Role) -> str | None:
        """The identity of what was downloaded for a role; None while it is not there."""
        return downloaded_identity(self._hub_file(role))

    def _hub_file(self, role: Role) -> HubFile:
        return hub_files(self.settings)[role]

    @cached_property
    def super_resolution(self) -> SuperResolution:
        """What `models.sr_dit` and `models.upsampler` enlarge to.

        Raises:
            UserError: a model is missing, or is not the one that `sample.sr` or the other model asks for.
        """
        models, asked = self.settings.models, self.settings.sample.enlarging
        if models.source == "hub" and "upsampler" not in self.own:
            chosen = super_resolution_of(self.settings)
            assert chosen is not None, "nothing is enlarged"
            return chosen
        path, named = self.path("upsampler"), named_resolution(self.path("sr_dit"))
        found = ENLARGES_TO if self.super_resolution_is_demo else upsampler_resolution(open_checkpoint(path))
        if asked not in ("off", "auto", found):
            hint = f"use the models for {asked}, or ask for {found} (sample.sr, --sr, --to)"
            raise UserError.at(path, f"is the latent upsampler for {found}, but sample.sr is {asked}", hint=hint)
        if named not in (None, found):
            words = f"is the latent upsampler for {found}, but models.sr_dit is the transformer for {named}"
            raise UserError.at(path, words, hint="use two models of one resolution")
        return SUPER_RESOLUTIONS[found]

    @property
    def super_resolution_is_demo(self) -> bool:
        """Whether the upsampler is the demo's."""
        return self.settings.models.source == "demo" and "upsampler" not in self.own

    @property
    def variant(self) -> str:
        """The checkpoint's name in the official list; it chooses the sampling defaults."""
        return self.found_variant.name

    @cached_property
    def found_variant(self) -> FoundVariant:
        """The checkpoint that the transformer is taken to be, and how that was found; its file need not exist yet."""
        task, configured = self.settings.task, self._configured_variant
        try:
            found = self.facts.variant
        except UserError:  # not downloaded yet, or damaged: the check of the models reports that
            detected = None if configured else detect_variant(self.path("dit"))
            found = choose_variant(detected, configured, task, meanflow=False)
        return found or FoundVariant(f"480p_{task}", "default")

    @cached_property
    def facts(self) -> CheckpointFacts:
        """The facts from the transformer's headers.

        Raises:
            UserError: no file is set, or it is missing or damaged.
        """
        return describe(self.path("dit"), configured=self._configured_variant, task=self.settings.task)

    @property
    def _configured_variant(self) -> FoundVariant | None:
        models = self.settings.models
        if models.variant != "auto":
            return FoundVariant(models.variant, "models.variant")
        is_demo = models.source == "demo" and "dit" not in self.own
        return FoundVariant(f"480p_{self.settings.task}", "demo") if is_demo else None
