"""Reads a dataset file as musubi-tuner's users have it: TOML with [general] and [[datasets]]."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from hv15.errors import UserError

PATHS = ("image_directory", "image_jsonl_file", "video_directory", "video_jsonl_file")


def read_musubi_toml(path: Path, root: Path | None = None) -> list[dict[str, Any]]:
    """Return the settings of each dataset, those of [general] filled in where a dataset has none of its own.

    Relative paths start at the project folder, or, if nothing is there, at the TOML's own folder. Names and values are
    passed on as they are; the settings model judges them. Without `enable_bucket` musubi crops images to the resolution
    itself, and puts videos into buckets nevertheless; so does what is returned here.

    Args:
        path: the TOML file.
        root: the project folder; by default the working directory, as for musubi.

    Raises:
        UserError: the file is missing, is not TOML (with line and column), or holds no dataset.
    """
    try:
        data = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}", hint="check `datasets` in config.yaml") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}", hint="save the file as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: not valid TOML: {error}", hint="strings and paths stand in quotes") from error
    general, datasets = data.pop("general", {}), data.pop("datasets", None)
    if data:
        raise UserError(
            f"{path}: unknown {', '.join(sorted(data))}", hint="settings stand under [general] or [[datasets]]"
        )
    if not isinstance(general, dict):
        raise UserError(f"{path}: general is not a table", hint="write it as [general]")
    if not isinstance(datasets, list) or not datasets or not all(isinstance(entry, dict) for entry in datasets):
        raise UserError(f"{path}: no datasets", hint="begin each dataset with a line [[datasets]]")
    root = Path.cwd() if root is None else root
    return [
        {key: _place(key, value, path, root) for key, value in {**_bucketing(entry), **general, **entry}.items()}
        for entry in datasets
    ]


def _bucketing(entry: dict[str, Any]) -> dict[str, bool]:
    return {} if any(key.startswith("video_") for key in entry) else {"enable_bucket": False}


def _place(key: str, value: Any, toml: Path, root: Path) -> Any:
    if key in PATHS and isinstance(value, str) and not (root / value).exists() and (toml.parent / value).exists():
        return str(toml.parent / value)
    return value
