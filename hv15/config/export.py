"""Writes the files that are generated from the settings: schema, docs table, examples. Run it after changing a setting.

python -m hv15.config.export
"""

from __future__ import annotations

import json
from pathlib import Path

from hv15.atomic import write_text
from hv15.config.docs import settings_table
from hv15.config.presets import preset_names, preset_text
from hv15.config.schema import json_schema

REPOSITORY = Path(__file__).parents[2]


def exports() -> dict[Path, str]:
    """Return all generated files, relative to the repository, with their text."""
    return {
        Path("hv15/config/schema.json"): json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n",
        Path("docs/settings.md"): settings_table(),
        **{Path("examples") / name / "config.yaml": preset_text(name) for name in preset_names()},
    }


def main() -> None:
    """Write the files that are out of date."""
    for path, text in exports().items():
        target = REPOSITORY / path
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            write_text(target, text)
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
