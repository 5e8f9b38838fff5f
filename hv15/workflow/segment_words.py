"""The trainings that made a LoRA one after the other (`hv15.train.segments`), in words."""

from __future__ import annotations

from collections.abc import Sequence

from hv15.records.json_values import Json, JsonObject
from hv15.train.origin import ENTRY, Origin
from hv15.workflow.differences import differences


def segment_words(segments: Sequence[JsonObject]) -> list[str]:
    """Return a line for each segment: its number, its first step, its start, what it changed."""
    lines, former = list[str](), dict[str, Json]()
    for number, each in enumerate(segments, start=1):
        config, origin, step = each.get("config"), each.get("origin"), each.get("from_step")
        start = f"from {Origin.of_spec({'train': {ENTRY: origin}})}" if isinstance(origin, dict) else "new"
        changes = (
            list(differences(former, config, {f"train.{ENTRY}": ""})) if former and isinstance(config, dict) else []
        )
        unknown = "" if isinstance(config, dict) else "unknown settings"
        lines.append(f"{number}. after step {step}: {'; '.join([start, *changes, *([unknown] if unknown else [])])}")
        former = config if isinstance(config, dict) else {}
    return lines
