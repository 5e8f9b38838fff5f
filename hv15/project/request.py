"""What `hv15 sample` asks for, as a project without datasets: its prompts, seeds, LoRAs and models.

Relative paths on a command line start at the working directory. Loads no torch.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hv15.choices import ROLES, Role
from hv15.config.models import ModelSettings
from hv15.config.prompt_files import read_prompts
from hv15.config.yaml_file import read_yaml
from hv15.errors import UserError
from hv15.project import Project
from hv15.records.json_values import Json, JsonObject
from hv15.records.problems import COMMAND_LINE, ConfigError, Location, Place, Problem
from hv15.weighted_file import read_weighted_file

_OPTIONS: dict[Location, str] = {
    ("sample", "video_size"): "size",
    ("sample", "video_length"): "frames",
    ("sample", "infer_steps"): "steps",
    ("sample", "guidance_scale"): "guidance",
    ("sample", "flow_shift"): "shift",
    ("sample", "negative_prompt"): "negative",
    ("sample", "fps"): "fps",
    ("sample", "output_type"): "output-type",
    ("sample", "prompts_file"): "prompts-file",
    ("sample", "seeds"): "seed",
    ("sample", "sr"): "sr",
}
"""The options that give one setting each."""
_OF_LORAS = {
    "include_patterns": "include",
    "exclude_patterns": "exclude",
    "strength_by": "lora-blocks and --lora-steps",
}
"""The options that give a setting of all LoRAs."""


@dataclass(frozen=True)
class SampleRequest:
    """Prompts, and what all of them have in common."""

    prompts: Sequence[str] = ()
    seeds: Sequence[int] = ()
    """Of each prompt that does not name its own; empty means the project's."""
    loras: Sequence[str] = ()
    """FILE or FILE:STRENGTH."""
    reach: Mapping[str, Json] = field(default_factory=dict)
    """Where all of them act: `include_patterns`, `exclude_patterns` and `strength_by` of `sample.loras`."""
    image: Path | None = None
    """The first frame of these prompts; those of a file name their own."""
    prompts_file: Path | None = None
    """Further prompts, instead of those of the project."""
    sample: Mapping[str, Json] = field(default_factory=dict)
    """Settings of `sample:`; None means the project's."""
    models: Mapping[Role, Path] = field(default_factory=dict)
    """Files instead of the project's; its other models stay."""
    settings: Sequence[str] = ()
    """Any other settings, as NAME=VALUE."""
    experiment: str = ""
    """Whose settings are used for what is not given here; "": the config's own."""
    typed: str = "--"
    """What the options began with, for messages."""


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
    if request.loras or not any(words.startswith("sample.loras=") for words in request.settings):
        asked["loras"] = [{**_lora(words), **request.reach} for words in request.loras]
    asked["strengths"], asked["compare"] = [], []  # the command has options for them
    asked["prompts"] = [*_prompts(request)]
    asked["prompts_file"] = None if request.prompts_file is None else str(request.prompts_file.absolute())
    if request.seeds:
        asked["seeds"] = [*dict.fromkeys(request.seeds)]
    changes: JsonObject = {**overrides, "datasets": [], "train": None, "convert": None}
    text = None
    if not config.exists():
        text = "{}"
        changes |= _without_config(config, overrides, request)
    for words in request.settings:
        _set(changes, words)
    changes["sample"] = {**_section(overrides, "sample"), **_section(changes, "sample"), **asked}
    models = {role: path.absolute() for role, path in request.models.items()}
    if models and _source(config, changes, text) == "files":
        paths: JsonObject = {role: str(path) for role, path in models.items()}
        changes["models"] = {**_section(changes, "models"), **paths}
        models = {}
    try:
        project = Project(config, changes, text=text, models=models, experiment=request.experiment, overrides_win=True)
    except ConfigError as error:
        given = {("sample", name) for name in asked}
        if text is not None:  # only a command line could have named the files
            given |= {("models", role) for role in ROLES}
        by_set = [tuple(words.partition("=")[0].split(".")) for words in request.settings]
        problems = (_as_typed(problem, given, by_set, request.typed) for problem in error.problems)
        raise ConfigError(dict.fromkeys(problems)) from None  # what is wrong with all prompts is said once
    _check_files(request)
    return project


def _check_files(request: SampleRequest) -> None:
    """Check that the files are there that options name; a model may be a folder.

    Raises:
        UserError: some are not; all of them at once.
    """
    named = [(f"{request.typed}lora", read_weighted_file(words)[0]) for words in request.loras]
    named += [(f"{request.typed}image", request.image)] if request.image is not None else []
    lines = [
        f"{option} {path.absolute()}: {'a folder' if path.is_dir() else 'no such file'}"
        for option, path in named
        if not path.is_file()
    ]
    lines += [
        f"--{role.replace('_', '-')} {path.absolute()}: no such file or folder"
        for role, path in request.models.items()
        if role != "tokenizer" and not path.exists()  # which may be a name on the Hub
    ]
    if lines:
        raise UserError(lines[0], lines=lines[1:], hint="correct the path")


def _as_typed(problem: Problem, given: Collection[Location], by_set: Iterable[Location], typed: str) -> Problem:
    """Name the option by which a setting was given, instead of the setting.

    Args:
        given: the settings that have options of their own.
        by_set: those that were given by --set.
        typed: what the options began with.
    """
    place = problem.place
    if place.file != COMMAND_LINE:
        return problem
    if place.setting[:2] not in given:
        is_by_set = any(place.setting[: len(name)] == name[: len(place.setting)] for name in by_set)
        return replace(problem, place=replace(place, file=Path("--set"))) if is_by_set else problem
    words, hint = None, problem.hint
    match place.setting:
        case ("sample", "prompts", int(), "prompt"):
            words, hint = "prompt", "describe the video in a few words"
        case ("sample", "prompts", int(), "image_path"):
            words, hint = f"{typed}image", "image-to-video takes a project with task: i2v, or --set task=i2v"
        case ("sample", "loras", int(), str(name), *_) if name in _OF_LORAS:
            words = f"{typed}{_OF_LORAS[name]}"
        case ("models", str(role)):
            words = f"--{role.replace('_', '-')}"
        case ("sample", _, *_) if place.setting[:2] in _OPTIONS:
            words = f"{typed}{_OPTIONS[place.setting[:2]]}"
    return problem if words is None else replace(problem, hint=hint, place=Place(Path(words)))


def _source(config: Path, changes: Mapping[str, Json], text: str | None) -> Json:
    """Return what `models.source` will be."""
    models = {**_section(read_yaml(config, text).data, "models"), **_section(changes, "models")}
    return models.get("source", ModelSettings().source)


def _without_config(config: Path, overrides: Mapping[str, Json], request: SampleRequest) -> JsonObject:
    """Return the settings that only a config could tell otherwise.

    Raises:
        UserError: the request names no models either.
    """
    if not request.models and not any(words.startswith("models.") for words in request.settings):
        raise UserError.at(
            config,
            "does not exist",
            hint="name a project with --project, or model files (--dit, --vae, --text-encoder, --tokenizer, "
            "--glyph-encoder), or have them downloaded: --set models.source=hub models.variant=480p_t2v",
        )
    return {
        "cache": {"directory": str(_user_cache()), **_section(overrides, "cache")},
        "task": "i2v" if _names_image(request) else "t2v",
    }


def _names_image(request: SampleRequest) -> bool:
    """Whether a prompt has a first frame, so that all of them have to.

    Raises:
        UserError: the file of prompts cannot be used.
    """
    if request.image is not None or request.prompts_file is None:
        return request.image is not None
    file = request.prompts_file.absolute()
    return any(entry.get("image_path") for entry in read_prompts(file, file.parent).entries)


def _prompts(request: SampleRequest) -> Iterator[JsonObject]:
    for prompt in dict.fromkeys(map(str.strip, request.prompts)):
        entry: JsonObject = {"prompt": prompt}
        if request.image is not None:
            entry["image_path"] = str(request.image.absolute())
        yield entry


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
