"""Reads a dataset file of musubi-tuner: TOML or JSON with `general` and `datasets`.

Settings that musubi treats differently are adapted, with a note to the user, so the file can be used unchanged.
"""

from __future__ import annotations

import json
import re
import stat
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from hv15.data.paths import brief, cure
from hv15.grid import encodable_frames
from hv15.records.json_values import Json, JsonObject
from hv15.records.problems import ConfigError, Place, Problem

MOST_BYTES = 1 << 18
"""The largest dataset file that is read; real ones have a few hundred bytes."""

PATHS = ("image_directory", "image_jsonl_file", "video_directory", "video_jsonl_file")

_CONTROL = "clips are trained without control pictures"
_NOT_USED = {  # the keys of musubi's schema, and of its rows, that hv15 does not use
    "cache_directory": "all datasets are cached in cache.directory",
    "skip_corrupted_cache": "damaged items of the cache are always found, and encoded again",
    "debug_dataset": "`hv15 check` shows the clips of a dataset",
    "control_directory": _CONTROL,
    "control_path": _CONTROL,
    "control_resolution": _CONTROL,
    "no_resize_control": _CONTROL,
    "flux_kontext_no_resize_control": _CONTROL,
    "qwen_image_edit_no_resize_control": _CONTROL,
    "qwen_image_edit_control_resolution": _CONTROL,
    "multiple_target": "it is for layered images",
    "fp_latent_window_size": "it is for FramePack",
    "fp_1f_clean_indices": "it is for FramePack",
    "fp_1f_target_index": "it is for FramePack",
    "fp_1f_no_post": "it is for FramePack",
    "audio_path": "the model has no sound",
}
_NUMBERED = re.compile(r"_\d+$")
_QUOTED_WINDOWS = re.compile(r'"[A-Za-z]:\\')
_LONG_KEY = re.compile(r"""(?<![\w.-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){32}""")
"""A key with too many dotted parts: tomllib's time and memory grow with the square of their number."""
_ESCAPE = """a backslash begins an escape in "...": write 'D:\\train' in single quotes, or "D:/train\""""
_AT = re.compile(r" \(at line (?P<line>\d+), column (?P<column>\d+)\)$")
_SHAPE = "put all settings under [general] or [[datasets]]"


@dataclass
class MusubiFile:
    """The datasets of a file."""

    datasets: list[JsonObject]
    """The settings of each dataset, including those of `general` that it does not override."""
    notes: list[str] = field(default_factory=list)
    """Settings that were adapted or are not used."""


def not_used(key: str) -> str | None:
    """Return a note about a key of musubi's that hv15 does not use; None for all other keys."""
    reason = _NOT_USED.get(_NUMBERED.sub("", key))
    return f"{key} is not used: {reason}" if reason else None


def read_musubi(path: Path, root: Path | None = None) -> MusubiFile:
    """Return the adapted datasets of a musubi file, which is JSON if its name ends in .json, else TOML.

    Relative paths start at the project folder or, if they do not exist there, at the file's own folder. Unknown names
    and values are returned unchanged, for the settings model to check. Without `enable_bucket`, musubi crops images to
    the resolution itself but still uses buckets for videos; the returned settings do the same.

    Args:
        path: the file.
        root: the project folder; the default is the working directory, as in musubi.

    Raises:
        ConfigError: the file is missing, too large, cannot be parsed (with line and column), or holds no dataset.
    """
    data = _parse(path)
    general, datasets = data.pop("general", {}), data.pop("datasets", None)
    if data:
        raise _wrong(Place(path), f"unknown {brief(', '.join(sorted(data)))}", _SHAPE)
    if not isinstance(general, dict):
        raise _wrong(Place(path, setting=("general",)), "is not a table", "write it as [general]")
    entries = [entry for entry in datasets if isinstance(entry, dict)] if isinstance(datasets, list) else []
    if not entries or entries != datasets:
        raise _wrong(Place(path), "no datasets", "begin each dataset with a line [[datasets]]")
    root = Path.cwd() if root is None else root
    notes: dict[str, None] = {}
    adapted = [_adapted(path, root, number, entry, general, notes) for number, entry in enumerate(entries)]
    return MusubiFile(adapted, list(notes))


def _adapted(
    path: Path, root: Path, number: int, entry: JsonObject, general: JsonObject, notes: dict[str, None]
) -> JsonObject:
    """Return the settings of one dataset, and add notes about removed settings; those in `general` are noted once."""
    is_video = any(key.startswith("video_") for key in entry)
    settings = {**({} if is_video else {"enable_bucket": False}), **general, **entry}
    for key in [key for key in settings if not_used(key)]:
        place = f"{path} datasets[{number}]" if key in entry else f"{path} general"
        notes[f"{place}: {not_used(key)}"] = None
        del settings[key]
    value = settings.get("target_frames")
    counts = [count for count in value if type(count) is int and count > 0] if isinstance(value, list) else []
    if counts and counts == value:
        rounded = list(dict.fromkeys(encodable_frames(count) for count in counts))
        if rounded != counts:
            notes[f"{path} datasets[{number}].target_frames: {counts} rounded down to {rounded}"] = None
        settings["target_frames"] = [*rounded]
    return {key: _resolved(path, number, key, value, root) for key, value in settings.items()}


def _resolved(file: Path, number: int, key: str, value: Json, root: Path) -> Json:
    """Expand `~` in a path, and resolve it from the file's folder if it exists there and not in the project.

    Values that are not paths are returned unchanged.
    """
    if key not in PATHS or not isinstance(value, str) or not value:
        return value
    if any(ord(character) < 32 for character in value):
        place = Place(file, setting=("datasets", number, key))
        raise _wrong(place, f"found {brief(repr(value))}", f"{cure(value)}; {_ESCAPE}")
    try:
        path = Path(value).expanduser()
        if not (root / path).exists() and (file.parent / path).exists():
            return str(file.parent / path)
    except (RuntimeError, OSError, ValueError):
        return value  # the settings model reports the problem
    return str(path) if value.startswith("~") else value


def _parse(path: Path) -> JsonObject:
    text = _text(path)
    is_json = path.suffix.lower() == ".json"
    try:
        if not is_json and _LONG_KEY.search(text):
            raise RecursionError
        data = json.loads(text) if is_json else tomllib.loads(text)
        json.dumps(data, ensure_ascii=False, default=str).encode()
    except RecursionError:
        raise _wrong(Place(path), "nested too deeply", _SHAPE) from None
    except UnicodeEncodeError as error:
        message = "holds half a character (an escape \\ud800 to \\udfff alone)"
        raise _wrong(Place(path), message, "write the character itself") from error
    except ValueError as error:  # from both parsers, and for numbers with thousands of digits
        raise _unparsed(path, text, error, is_json) from error
    if isinstance(data, dict):
        return data
    found = "a JSON array" if isinstance(data, list) else type(data).__name__
    raise _wrong(Place(path), f"found {found}, expected an object", 'write {"general": {}, "datasets": [...]}')


def _unparsed(path: Path, text: str, error: ValueError, is_json: bool) -> ConfigError:
    if is_json and _QUOTED_WINDOWS.search(text):
        hint = 'write paths with / ("D:/train"), or each backslash twice'
    elif _QUOTED_WINDOWS.search(text):
        hint = _ESCAPE
    elif not is_json and text.lstrip().startswith("{"):
        hint = "rename it to end in .json: it looks like JSON"
    else:
        hint = "put strings and paths in quotes"
    if isinstance(error, json.JSONDecodeError):
        return _wrong(Place(path, error.lineno, error.colno), f"not valid JSON: {error.msg}", hint)
    at = _AT.search(str(error))
    place = Place(path, int(at["line"]), int(at["column"])) if at else Place(path)
    said = _AT.sub("", str(error))
    return _wrong(place, f"not valid {'JSON' if is_json else 'TOML'}: {brief(said)}", hint)


def _wrong(place: Place, message: str, hint: str) -> ConfigError:
    return ConfigError([Problem(message, hint, place)])


def _text(path: Path) -> str:
    place, check = Place(path), "check `datasets` in config.yaml"
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise _wrong(place, "not a regular file", check)
        if status.st_size > MOST_BYTES:
            size = f"{status.st_size >> 10} KiB, expected at most {MOST_BYTES >> 10} KiB"
            raise _wrong(place, size, "set `datasets` to a dataset file: TOML or JSON with [general] and [[datasets]]")
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise _wrong(place, f"cannot be read: {error.strerror}", check) from error
    except UnicodeDecodeError as error:
        raise _wrong(place, f"not UTF-8 at byte {error.start}", "save the file as UTF-8") from error
