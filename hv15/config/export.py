"""Writes the files that are generated from the settings: schema, docs table, examples. Run it after changing a setting.

python -m hv15.config.export
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from hv15.atomic import write_text
from hv15.config.docs import settings_table
from hv15.config.presets import DEMO, preset_names, preset_text
from hv15.config.schema import json_schema
from hv15.home import clone

REPOSITORY = Path(__file__).parents[2]


def exports() -> dict[Path, str]:
    """Return all generated files, relative to the repository, with their text."""
    return {
        Path("hv15/config/schema.json"): json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n",
        Path("docs/settings.md"): settings_table(),
        Path("config.yaml"): f"# yaml-language-server: $schema=hv15/config/schema.json\n#\n{preset_text(DEMO)}",
        **{Path("examples") / name / "config.yaml": preset_text(name) for name in preset_names() if name != DEMO},
    }


def main() -> None:
    """Write the files that are out of date."""
    if clone() is None:
        sys.exit("these files are part of hv15's repository: run this in a clone")
    for path, text in exports().items():
        target = REPOSITORY / path
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            write_text(target, text)
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
