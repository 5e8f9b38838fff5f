"""Writes docs/settings.md, a table of all settings, from the models."""

from __future__ import annotations

from itertools import groupby

from hv15.config.after_edit import AFTER_EDIT
from hv15.config.fields import NOT_SET, FieldInfo, fields
from hv15.config.settings import Settings

_HEAD = """\
# Settings

All settings of config.yaml. `python -m hv15.config.export` writes this file from the models in hv15/config: change the
text there.

Relative paths start at the folder of config.yaml. Paths may contain `${NAME}` and `${NAME:-default}` (environment
variables). Any setting can be set on the command line for one call, after the target, because Snakemake reads all words
after `--config` as settings: `snakemake results/lora.safetensors --config train='{seed: 7}'`, or
`hv15 run --snakemake --config train='{seed: 7}'`.

A training consists of its past, on which the steps that are done depend, and of its future (docs/how-it-works.md).
Where an edit starts it anew, the former one is kept beside it. The mark of a setting says what an edit does:

"""


def settings_table() -> str:
    """Return the text of docs/settings.md."""
    blocks = [_HEAD + "".join(f"- *{mark}*: {words}\n" for mark, words in AFTER_EDIT.items())]
    for section, group in groupby(fields(Settings), key=lambda field: _section(field)):
        listed = list(group)
        heading = [field for field in listed if field.is_section and field.path == section]
        rows = [field for field in listed if field not in heading]
        blocks.append(f"## {section or 'Top level'}\n")
        blocks += [f"{field.doc}\n" for field in heading]
        if rows:
            blocks.append("| setting | values | default | meaning |\n|---|---|---|---|\n" + "".join(map(_row, rows)))
    return "\n".join(blocks)


def _section(field: FieldInfo) -> str:
    """Return the section under which a setting is listed, or "" for settings at the top level."""
    return field.path.split(".")[0].removesuffix("[]") if field.is_section or "." in field.path else ""


def _row(field: FieldInfo) -> str:
    name = field.path.split(".", 1)[-1]
    mark = f" *({field.affects})*" if field.after_edit else ""
    default = f"`{field.default_text}`" if field.default_text not in ("", "required", NOT_SET) else field.default_text
    cells = (f"`{name}`", field.type, default, field.doc + mark)
    return "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |\n"
