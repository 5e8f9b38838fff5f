"""What the job of a shard has to know of each of its stages; the planner writes it into the spec of the job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hv15.records.json_values import Json, JsonObject, RecordError, as_object, as_text, text_of
from hv15.records.spec import Spec
from hv15.records.stage_names import rule_of

PARTS = "parts"
"""The entry of a spec's details that lists them."""


@dataclass(frozen=True)
class ShardPart:
    """One stage of a shard."""

    stage: str
    """Rule and wildcards: `sample_latents.NAME`."""
    product: Path
    """Relative to the project folder. The job leaves it in `ProjectPaths.before_taken`."""
    wanted: JsonObject
    """What it has to be made from."""
    details: JsonObject
    """As in the stage's own spec."""
    inputs: Mapping[str, Path] = field(default_factory=dict)
    """The first file of each of its inputs, by name."""

    @property
    def rule(self) -> str:
        return rule_of(self.stage)

    def to_json(self) -> JsonObject:
        """Return it as JSON, which `from_json` reads."""
        inputs: JsonObject = {name: str(file) for name, file in self.inputs.items()}
        return {
            "stage": self.stage,
            "product": str(self.product),
            "wanted": self.wanted,
            "details": self.details,
            "inputs": inputs,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Json]) -> ShardPart:
        """Make it from the result of `to_json`.

        Raises:
            RecordError: it is not such a record.
        """
        inputs = as_object(content.get("inputs"))
        return cls(
            text_of(content, "stage"),
            Path(as_text(content.get("product"))),
            as_object(content.get("wanted")),
            as_object(content.get("details")),
            {name: Path(as_text(file)) for name, file in inputs.items()},
        )


def failure_beside(left: Path) -> Path:
    """Return where the job of a shard leaves the reason why it could not make a file.

    Args:
        left: where it would have left the file.
    """
    return left.with_name(f"{left.name}.failure.json")


def parts_of(spec: Spec) -> list[ShardPart]:
    """Return the stages of a shard, each after those that it reads from.

    Raises:
        RecordError: it is the spec of something else.
    """
    parts = spec.details.get(PARTS)
    if not isinstance(parts, list):
        raise RecordError("it names no parts of a shard")
    return [ShardPart.from_json(as_object(part)) for part in parts]
