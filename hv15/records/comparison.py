"""What the job that compares experiments has to know: the details of its spec."""

from __future__ import annotations

from dataclasses import dataclass, field

from hv15.records.json_values import Json, JsonObject, RecordError, as_object, as_text


@dataclass(frozen=True)
class ComparisonDetails:
    """Which experiments are compared."""

    experiments: tuple[str, ...]
    """Their names, in the order of the config."""
    settings: dict[str, JsonObject] = field(default_factory=dict)
    """Settings of samples in which they differ, by experiment and dotted name: no record of a training tells them."""
    has_samples: bool = True
    """Whether samples are drawn side by side."""

    def to_json(self) -> JsonObject:
        """Return it as JSON, which `from_json` reads."""
        settings: JsonObject = dict(self.settings)
        return {"experiments": [*self.experiments], "settings": settings, "has_samples": self.has_samples}

    @classmethod
    def from_json(cls, content: JsonObject) -> ComparisonDetails:
        """Make it from the result of `to_json`.

        Raises:
            RecordError: it is not such a record.
        """
        names = content.get("experiments")
        if not isinstance(names, list):
            raise RecordError("experiments: expected a list")
        settings: dict[str, Json] = as_object(content.get("settings"))
        return cls(
            tuple(map(as_text, names)),
            {name: as_object(value) for name, value in settings.items()},
            content.get("has_samples") is True,
        )
