"""Reads a file of prompts (`sample.prompts_file`): YAML, JSONL, or plain text with one prompt a line.

A prompt's text is nothing but text: whatever stands in it, no part of it is read as an option.

- .yaml, .yml: a list. Each entry is a text, or a mapping as in `sample.prompts`.
- .jsonl, .ndjson: such an entry in each line, as JSON.
- .txt: a prompt in each line. Empty lines and lines that begin with # are left out.

Every entry gets a name. One that is not given is made from the prompt, as in the config; where several entries share a
prompt, each name stands for everything that its entry says.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hv15.config.sample import PromptSettings, automatic_name, name_from_words
from hv15.config.yaml_file import YamlList, read_regular_file, read_yaml_list
from hv15.data.captions import decode_text
from hv15.digest import text_digest
from hv15.records.json_values import Json, JsonObject
from hv15.records.problems import ConfigError, Location, Place, Problem

MOST_BYTES = 1 << 24
"""The largest file of JSONL or text; ten thousand long prompts have half of that."""
MOST_PROMPTS = 10_000
"""Each is a target of the workflow."""
MOST_PROBLEMS = 100
"""Reported at once."""

_ENTRY = "a text, or settings as in sample.prompts, such as {prompt: a cat, seed: 5}"
_ENDINGS = ".yaml, .jsonl or .txt"


@dataclass(frozen=True)
class PromptsFile:
    """The prompts of a file, as entries of `sample.prompts`."""

    path: Path
    entries: list[JsonObject]
    lines: list[int]
    """The line of each entry, from 1."""
    numbers: list[int]
    """Which of all that the file lists each entry is, from 0; what is no entry is left out."""
    yaml: YamlList | None = None
    """Knows the place of each value, if the file is YAML."""
    problems: list[Problem] = field(default_factory=list)
    """What is wrong beside the settings of the entries."""

    def report(self, found: str, place: Place) -> None:
        """Add a problem, unless there are too many already."""
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(Problem(found, place=place))

    def place(self, number: int, inside: Location = (), *, of_key: bool = False) -> Place:
        """Return the place of an entry, or of a setting in it."""
        if self.yaml is None or not inside:
            return Place(self.path, self.lines[number], setting=inside)
        return Place(self.path, *self.yaml.position((self.numbers[number], *inside), of_key=of_key), inside)


def read_prompts(path: Path, root: Path) -> PromptsFile:
    """Read a file of prompts.

    Relative paths in it start at its own folder or, if they do not exist there, at the project folder.

    Args:
        root: the project folder.

    Raises:
        ConfigError: the file is missing, too large, of another kind, not UTF-8 or not YAML. Wrong entries are among its
            `problems` instead, so that they are reported together with those that the settings find.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise _wrong(Place(path), f"expected a file of prompts that ends in {_ENDINGS}", "rename the file")
    found = reader(path)
    if not found.entries and not found.problems:
        raise _wrong(Place(path), "no prompts in this file", f"add one: {_ENTRY}")
    if len(found.entries) > MOST_PROMPTS:
        many = f"{len(found.entries):,} prompts, at most {MOST_PROMPTS:,} are read"
        raise _wrong(Place(path), many, "divide the file, and sample one part after the other")
    _name(found)
    for entry in found.entries:
        _find_files(entry, path.parent, root)
    return found


# -- kinds of files -------------------------------------------------------------------------------------------------


def _read_yaml(path: Path) -> PromptsFile:
    file = read_yaml_list(path, "prompts such as `- a cat`")
    lines = (file.position((number,))[0] for number in range(len(file.data)))
    return _entries(path, zip(lines, file.data, strict=True), yaml=file)


def _read_jsonl(path: Path) -> PromptsFile:
    found: list[tuple[int, Json]] = []
    problems: list[Problem] = []
    for line, text in _lines(path):
        try:
            found.append((line, json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number)))
        except json.JSONDecodeError as error:
            hint = "write one entry a line: a text in quotes, or an object in braces"
            problems.append(Problem(f"not JSON: {error.msg}", hint, Place(path, line, error.colno)))
        except RecursionError:
            problems.append(Problem("nested too deeply", place=Place(path, line)))
        except ValueError as error:
            problems.append(Problem(str(error), place=Place(path, line)))
        if len(problems) >= MOST_PROBLEMS:
            break
    return _entries(path, found, problems)


def _read_text(path: Path) -> PromptsFile:
    found: list[tuple[int, Json]] = [(line, text) for line, text in _lines(path) if not text.startswith("#")]
    return _entries(path, found)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that hold something, without the white space around it, with their numbers from 1."""
    data = read_regular_file(path, MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise _wrong(Place(path), f"more than {MOST_BYTES >> 20} MiB, expected a file of prompts", "divide it")
    for number, line in enumerate(re.split(rb"\r\n|\r|\n", data)):
        try:
            text = decode_text(line).strip()
        except ValueError as error:
            found = str(error).replace("at offset", "in this line, at offset")
            raise _wrong(Place(path, number + 1), found, "save the file as UTF-8 in your editor") from None
        if text:
            yield number + 1, text


def _unique(pairs: list[tuple[str, Json]]) -> JsonObject:
    found: JsonObject = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"'{twice:.60}' is a duplicate: write each setting once")
    return found


def _no_number(word: str) -> float:
    raise ValueError(f"found {word}, expected a finite number")


_READERS = {
    ".yaml": _read_yaml,
    ".yml": _read_yaml,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".txt": _read_text,
}
"""By the ending of the file's name."""


# -- entries --------------------------------------------------------------------------------------------------------


def _entries(
    path: Path,
    found: Iterable[tuple[int, Json]],
    problems: Iterable[Problem] = (),
    *,
    yaml: YamlList | None = None,
) -> PromptsFile:
    """Turn values, with their lines, into entries of `sample.prompts`.

    A value that is neither a text nor settings, or that holds what no text can, is a problem and no entry.

    Args:
        problems: those that the reader found.
    """
    file = PromptsFile(path, [], [], [], yaml, [*problems])
    for number, (line, value) in enumerate(found):
        if isinstance(value, str):
            entry: JsonObject = {"prompt": value}
        elif isinstance(value, dict):
            entry = dict(value)
        else:
            file.report(f"found {_short(value)}, expected {_ENTRY}", Place(path, line))
            continue
        if trouble := _trouble(entry):
            file.report(trouble, Place(path, line))
            continue
        file.entries.append(entry)
        file.lines.append(line)
        file.numbers.append(number)
    return file


def _trouble(entry: JsonObject) -> str:
    """What is wrong with an entry that the settings would not explain; "" if nothing is."""
    if entry and not entry.keys() & PromptSettings.model_fields.keys():
        found = next(iter(entry))
        return f"found a mapping that begins with '{found:.60}': if it is a prompt with a colon in it, put it in quotes"
    for text in _texts(entry):
        if "\0" in text:
            return "holds a NUL character: delete it"
        try:
            text.encode()
        except UnicodeEncodeError:
            return "holds half a character (an escape \\ud800 to \\udfff alone): write the character itself"
    return ""


def _texts(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from (name, *_texts(each))


def _short(value: Json) -> str:
    return "nothing" if value is None else "a list" if isinstance(value, list) else json.dumps(value)[:60]


# -- names and files ------------------------------------------------------------------------------------------------


def _name(found: PromptsFile) -> None:
    """Give a name to each entry that has none. It is a problem if two are the same, or have the same name."""
    derived = [None if entry.get("name") else _derived(entry) for entry in found.entries]
    shared = Counter(derived)
    seen: dict[str, int] = {}
    for number, (entry, automatic) in enumerate(zip(found.entries, derived, strict=True)):
        name = entry.get("name") or automatic
        if not isinstance(name, str):  # which the settings refuse
            continue
        said, cure = f"'{name:.60}' is also the name of the prompt", "give each prompt its own name"
        if automatic is not None and shared[automatic] > 1:
            content = text_digest(json.dumps(entry, sort_keys=True))[:8]
            name = f"{name_from_words(str(entry['prompt']))}-{content}"
            said, cure = "says the same as the prompt", "remove one, or ask for several seeds"
        first = seen.setdefault(name.lower(), number)
        if first != number:
            found.report(f"{said} in line {found.lines[first]}: {cure}", found.place(number))
            name = text_digest(f"{number} {name}")[:32]  # its own, so that the settings do not report it again
        entry["name"] = name


def _derived(entry: JsonObject) -> str | None:
    """The name that an entry would have in the config; None if it has no prompt."""
    prompt = entry.get("prompt")
    return automatic_name(prompt.strip(), str(entry.get("image_path") or "")) if isinstance(prompt, str) else None


def _find_files(entry: JsonObject, folder: Path, root: Path) -> None:
    """Let the relative paths of an entry that exist in the file's folder start at the project folder."""

    def found(value: Json) -> Json:
        return _from_root(value, folder, root) if isinstance(value, str) else value

    if "image_path" in entry:
        entry["image_path"] = found(entry["image_path"])
    loras = entry.get("loras")
    if isinstance(loras, list):
        entry["loras"] = [
            {**lora, "path": found(lora["path"])} if isinstance(lora, dict) and "path" in lora else lora
            for lora in loras
        ]


def _from_root(path: str, folder: Path, root: Path) -> str:
    if not path or "\0" in path or path.startswith("~") or "${" in path or Path(path).is_absolute():
        return path
    beside = folder.absolute() / path
    try:
        if not beside.exists():
            return path
    except OSError:
        return path
    return str(beside.relative_to(root) if beside.is_relative_to(root) else beside)


def _wrong(place: Place, found: str, hint: str) -> ConfigError:
    return ConfigError([Problem(found, hint, place)])
