"""What `hv15 sample` asks for, as a project without datasets: its prompts, seeds, LoRAs and models.

Relative paths on a command line start at the working directory. Loads no torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hv15.choices import Role
from hv15.config.sample import name_from_words
from hv15.config.yaml_file import read_yaml
from hv15.digest import short
from hv15.errors import UserError
from hv15.project import Project
from hv15.records.json_values import Json, JsonObject
from hv15.sample.prompts import SampleSpec
from hv15.weighted_file import read_weighted_file


@dataclass(frozen=True)
class SampleRequest:
    """Prompts, and what all of them have in common."""

    prompts: Sequence[str]
    seeds: Sequence[int] = ()
    """Of each prompt; empty means the project's."""
    loras: Sequence[str] = ()
    """FILE or FILE:STRENGTH."""
    reach: Mapping[str, Json] = field(default_factory=dict)
    """Where all of them act: `include_patterns`, `exclude_patterns` and `strength_by` of `sample.loras`."""
    image: Path | None = None
    sample: Mapping[str, Json] = field(default_factory=dict)
    """Settings of `sample:`; None means the project's."""
    models: Mapping[Role, Path] = field(default_factory=dict)
    """Files instead of the project's."""
    settings: Sequence[str] = ()
    """Any other settings, as NAME=VALUE."""


def open_project(config: Path, overrides: Mapping[str, Json], request: SampleRequest) -> Project:
    """Return a project that samples what is asked for, and trains nothing.

    Args:
        config: the config file. If there is none, the request has to name the models, and encoded texts are kept in the
            user's own cache folder.
        overrides: settings that override the file's.

    Raises:
        UserError: there is neither a project nor a model, or something that was asked for cannot be used.
    """
    asked: JsonObject = {name: value for name, value in request.sample.items() if value is not None}
    if request.reach and not request.loras:
        raise UserError(
            "patterns and factors say where LoRAs act, but there is no --lora",
            hint="name a LoRA with --lora, or leave out --include, --exclude, --lora-blocks and --lora-steps",
        )
    if request.loras or not any(words.startswith("sample.loras=") for words in request.settings):
        asked["loras"] = [{**_lora(words), **request.reach} for words in request.loras]
    asked["prompts"] = [*_prompts(request)]
    changes: JsonObject = {**overrides, "datasets": [], "train": None, "convert": None}
    if request.models:
        changes["models"] = {
            **_section(overrides, "models"),
            "source": "files",
            **{role: str(path.absolute()) for role, path in request.models.items()},
        }
    text = None
    if not config.exists():
        text = "{}"
        changes |= _without_config(config, overrides, request)
    for words in request.settings:
        _set(changes, words)
    changes["sample"] = {**_section(overrides, "sample"), **_section(changes, "sample"), **asked}
    return Project(config, changes, text=text)


def _without_config(config: Path, overrides: Mapping[str, Json], request: SampleRequest) -> JsonObject:
    """Return the settings that only a config could tell otherwise.

    Raises:
        UserError: the request names no models either.
    """
    if not request.models:
        raise UserError.at(
            config,
            "does not exist",
            hint="name a project with --project, or model files: --dit, --vae, --text-encoder, --tokenizer, "
            "--glyph-encoder",
        )
    return {
        "cache": {"directory": str(_user_cache()), **_section(overrides, "cache")},
        "task": "t2v" if request.image is None else "i2v",
    }


def named_samples(project: Project) -> Iterator[SampleSpec]:
    """Yield what a request's project samples. Each name says prompt and seed, and ends in a digest of everything."""
    text = project.texts.settings_digest
    for spec in project.samples.values():
        digest = short([spec.denoising(None, text), spec.decoding(None, text)])[:8]
        yield replace(spec, name=f"{name_from_words(spec.prompt)}-seed{spec.seed}-{digest}")


def _prompts(request: SampleRequest) -> Iterator[JsonObject]:
    for number, prompt in enumerate(request.prompts):
        entry: JsonObject = {"prompt": prompt}
        if request.image is not None:
            entry["image_path"] = str(request.image.absolute())
        for seed in dict.fromkeys(request.seeds):
            yield {**entry, "name": f"prompt{number}-seed{seed}", "seed": seed}
        if not request.seeds:
            yield {**entry, "name": f"prompt{number}"}


def _lora(words: str) -> JsonObject:
    """Return the entry of `sample.loras` for FILE or FILE:STRENGTH."""
    path, strength = read_weighted_file(words)
    entry: JsonObject = {"path": str(path.absolute())}
    return entry if strength is None else {**entry, "multiplier": strength}


def _set(changes: JsonObject, words: str) -> None:
    """Put a setting NAME=VALUE in its place; the value is read as in config.yaml."""
    name, separator, value = words.partition("=")
    keys = name.split(".")
    if not separator or not all(keys):
        raise UserError(f"--set {words}: expected NAME=VALUE", hint="for example --set sample.quantize=fp8")
    read = read_yaml(Path("--set"), f"value: {value}").data["value"]
    place = changes
    for key in keys[:-1]:
        inside = place.get(key)
        place[key] = place = dict(inside) if isinstance(inside, dict) else {}
    place[keys[-1]] = read


def _section(settings: Mapping[str, Json], name: str) -> JsonObject:
    found = settings.get(name)
    return dict(found) if isinstance(found, dict) else {}


def _user_cache() -> Path:
    """Where texts are kept that belong to no project."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hv15"
