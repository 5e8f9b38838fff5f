"""The stages that would run, and why, in words: written by `hv15 why --json`, read by the dashboard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hv15.records.json_values import Json, JsonObject, RecordError, as_object, text_of
from hv15.records.stage_names import rule_of

VERSION = 1


@dataclass(frozen=True)
class DueStage:
    """A stage that has to run."""

    name: str
    """Rule and wildcard, after the experiment if it is of one: `train`, `sample_video.NAME`, `small/train`."""
    title: str
    """What it does, for a person."""
    reasons: tuple[str, ...]
    """Why it has to run, in words: `train.network_dim 4 -> 8`."""
    products: tuple[str, ...] = ()
    """Paths relative to the project folder."""

    @property
    def rule(self) -> str:
        return rule_of(self.name)


@dataclass(frozen=True)
class DueStages:
    """All stages that have to run, in order."""

    stages: tuple[DueStage, ...] = ()

    def to_json(self) -> JsonObject:
        """Return it as JSON, which `from_json` reads."""
        stages: list[Json] = [
            {
                "name": each.name,
                "title": each.title,
                "reasons": list(each.reasons),
                "products": list(each.products),
            }
            for each in self.stages
        ]
        return {"version": VERSION, "stages": stages}

    @classmethod
    def from_json(cls, content: Mapping[str, Json]) -> DueStages:
        """Make it from the result of `to_json`.

        Raises:
            RecordError: it is of another version, or not such a record.
        """
        if content.get("version") != VERSION:
            raise RecordError(
                f"is of version {content.get('version')}, but this hv15 understands only version {VERSION}"
            )
        stages = content.get("stages")
        if not isinstance(stages, list):
            raise RecordError("holds no stages")
        return cls(tuple(_stage(as_object(each)) for each in stages))


def _stage(content: JsonObject) -> DueStage:
    return DueStage(
        text_of(content, "name"),
        text_of(content, "title"),
        _texts(content.get("reasons")),
        _texts(content.get("products")),
    )


def _texts(value: Json) -> tuple[str, ...]:
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()
