"""Reads a dataset file as musubi-tuner's users have it: TOML with [general] and [[datasets]]."""

from __future__ import annotations

import tomllib
from pathlib import Path

from hv15.records.json_values import Json, JsonObject
from hv15.records.problems import ConfigError, Place, Problem

PATHS = ("image_directory", "image_jsonl_file", "video_directory", "video_jsonl_file")


def read_musubi_toml(path: Path, root: Path | None = None) -> list[JsonObject]:
    """Return the settings of each dataset, those of [general] filled in where a dataset has none of its own.

    Relative paths start at the project folder, or, if nothing is there, at the TOML's own folder. Names and values are
    passed on as they are; the settings model judges them. Without `enable_bucket` musubi crops images to the resolution
    itself, and puts videos into buckets nevertheless; so does what is returned here.

    Args:
        path: the TOML file.
        root: the project folder; by default the working directory, as for musubi.

    Raises:
        ConfigError: the file is missing, is not TOML (with line and column), or holds no dataset.
    """
    try:
        data = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise _error(path, f"cannot be read: {error.strerror}", "check `datasets` in config.yaml") from error
    except UnicodeDecodeError as error:
        raise _error(path, f"not UTF-8 at byte {error.start}", "save the file as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise _error(path, f"not valid TOML: {error}", "strings and paths stand in quotes") from error
    general, datasets = data.pop("general", {}), data.pop("datasets", None)
    if data:
        raise _error(path, f"unknown {', '.join(sorted(data))}", "settings stand under [general] or [[datasets]]")
    if not isinstance(general, dict):
        raise _error(path, "general is not a table", "write it as [general]")
    if not isinstance(datasets, list) or not datasets or not all(isinstance(entry, dict) for entry in datasets):
        raise _error(path, "no datasets", "begin each dataset with a line [[datasets]]")
    root = Path.cwd() if root is None else root
    return [
        {key: _place(key, value, path, root) for key, value in {**_bucketing(entry), **general, **entry}.items()}
        for entry in datasets
    ]


def _error(path: Path, message: str, hint: str) -> ConfigError:
    return ConfigError([Problem(message, hint, Place(path))])


def _bucketing(entry: JsonObject) -> dict[str, bool]:
    return {} if any(key.startswith("video_") for key in entry) else {"enable_bucket": False}


def _place(key: str, value: Json, toml: Path, root: Path) -> Json:
    if key in PATHS and isinstance(value, str) and not (root / value).exists() and (toml.parent / value).exists():
        return str(toml.parent / value)
    return value
