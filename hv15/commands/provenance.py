"""`hv15 show`: what a file says about itself."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from hv15.errors import UserError
from hv15.project import metadata
from hv15.project.checkpoints import published_step
from hv15.records.json_values import Json, JsonObject, RecordError, parse_json
from hv15.records.metadata import SEGMENTS
from hv15.records.training import STATES_KEPT
from hv15.terminal_text import one_line, visible
from hv15.train.segments import segments_of_lora
from hv15.workflow.segment_configs import segment_config, told_config_of
from hv15.workflow.segment_words import segment_words

KINDS = f"{', '.join(metadata.KINDS)} or .json"


def metadata_of(path: Path) -> dict[str, str]:
    """The text metadata of a LoRA, a checkpoint, latents (.safetensors), a video or an image; the entries of a .json.

    Raises:
        UserError: the file is missing, damaged, or of a kind that carries none.
    """
    if path.is_dir():
        raise UserError.at(path, "a folder", hint="give one of the files in it")
    if not path.exists():
        raise UserError.at(path, "does not exist", hint=f"give a {KINDS} file")
    if not path.is_file():  # a pipe would be waited for
        raise UserError.at(path, "not a regular file", hint=f"give a {KINDS} file")
    if path.suffix in metadata.KINDS:
        return metadata.read_metadata(path)
    if path.suffix == ".json":
        return _entries(path)
    raise UserError.at(path, "is of an unknown kind", hint=f"give a {KINDS} file")


def _entries(path: Path) -> dict[str, str]:
    try:
        content = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError.at(path, f"cannot be read as JSON: {error}", hint="copy or make it again") from error
    if not isinstance(content, dict):
        raise UserError.at(
            path,
            f"holds a {type(content).__name__}, expected an object in braces",
            hint="only what hv15 wrote can be shown",
        )
    return {key: json.dumps(value, ensure_ascii=False) for key, value in content.items()}


def describe(path: Path) -> str:
    """Return a line for each entry, with JSON laid out below its name; first a warning if a LoRA cannot be used.

    Raises:
        UserError: see `metadata_of`.
    """
    entries = metadata_of(path)
    lines = [*_warnings(path), *_published_step(path)]
    if not entries:
        return "\n".join([*lines, f"{one_line(str(path))}: carries no metadata"])
    for name in sorted(entries):
        value = _parsed(entries[name])
        text = str(value)
        if isinstance(value, dict | list):
            try:
                told = segment_words(segments_of_lora(entries)) if name == SEGMENTS else []
                text = "\n".join(told) or yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110).rstrip()
            except RecursionError:  # nested too deep to be laid out
                text = entries[name]
        if isinstance(value, dict | list) or "\n" in text:
            lines.append(f"{one_line(name)}:\n" + "\n".join(f"  {one_line(line)}" for line in text.split("\n")))
        else:
            lines.append(f"{one_line(name)}: {text}")
    return "\n".join(lines)


def _warnings(path: Path) -> list[str]:
    """One line for a LoRA of a kind that cannot be used; nothing for any other file."""
    if path.suffix != ".safetensors":
        return []
    from hv15.lora.kinds import refuse_unusable
    from hv15.models.weights.header import read_header

    try:
        refuse_unusable(read_header(path).entries)
    except UserError as error:
        return [one_line(f"{path}: {error.message}")]
    return []


def _published_step(path: Path) -> list[str]:
    """One line for a LoRA that was kept on the way of its training."""
    step = published_step(path) if path.suffix == ".safetensors" else None
    return [] if step is None else [one_line(f"{path}: the LoRA after step {step:,} of its training")]


def config_of(path: Path, number: int | None = None) -> str:
    """The config.yaml that reproduces the file, or what one of the trainings made that it is the work of.

    Args:
        number: of that training, from 1; None for the last, which continued the others.

    Raises:
        UserError: the file was not made by hv15, or there is no such training.
    """
    metadata = metadata_of(path)
    count = max(1, len(segments_of_lora(metadata)))
    if number is not None and not 1 <= number <= count:
        told_config_of(path, metadata)
        raise UserError.at(path, f"--segment: found {number}, but {_trainings(count)}", hint=f"give 1 to {count}")
    found = segment_config(path, metadata, number or count)
    note = f"# The next training starts from {found.start_of_next}.\n" if found.start_of_next else ""
    if found.stop_after is not None and not found.is_short:
        note += f"# Stop it after that, and before step {STATES_KEPT * found.stop_after + 1}: `hv15 stop`.\n"
    return note + as_yaml(found.config)


def _trainings(count: int) -> str:
    return "one training made it" if count == 1 else f"{count} trainings made it one after the other"


def as_yaml(config: JsonObject) -> str:
    """Return a config as the text of a config.yaml, which may be printed."""
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=110)
    if text == visible(text):
        return text
    return yaml.safe_dump(config, sort_keys=False, width=110)  # escaped, so that a terminal obeys none of it


def _parsed(text: str) -> Json:
    try:
        return parse_json(text)
    except RecordError:
        return text
