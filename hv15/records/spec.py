"""Specs: what a product has to be made from. The planner writes a spec, and the product's job reads it.

The product's own metadata says what it was made from (`made_from`). The product is up to date exactly if that equals
the `wanted` of its spec, so this never depends on what Snakemake remembers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hv15.atomic import write_json
from hv15.errors import UserError
from hv15.records.json_values import JsonObject, RecordError, as_object, read_record

VERSION = 1


@dataclass(frozen=True)
class Spec:
    """What one product has to be made from."""

    wanted: JsonObject
    """Everything on which its content depends, without names and paths. The product's metadata will contain it."""
    details: JsonObject = field(default_factory=dict)
    """What else its job needs to know, such as the paths of its inputs."""
    runs: bool = False
    """Whether the job had to run when this was written."""
    planned: int = 0
    """When a wrong product had to be replaced, in nanoseconds since 1970, so that each such spec is a new file."""

    def write(self, path: Path) -> None:
        """Write it atomically.

        Raises:
            UserError: the disk is full, or the folder cannot be written.
        """
        content = {"version": VERSION, "wanted": self.wanted, "details": self.details, "runs": self.runs}
        write_json(path, content | ({"planned": self.planned} if self.planned else {}), durable=False, compact=True)

    @classmethod
    def load(cls, path: Path) -> Spec:
        """Read a spec.

        Raises:
            RecordError: it is missing, damaged, or of another version.
        """
        content = read_record(path, VERSION)
        planned = content.get("planned", 0)
        return cls(
            as_object(content.get("wanted")),
            as_object(content.get("details", {})),
            content.get("runs") is True,
            planned if isinstance(planned, int) else 0,
        )

    @classmethod
    def read(cls, path: Path) -> Spec:
        """Read a spec for its job.

        Raises:
            UserError: it is missing, damaged, or of another version.
        """
        try:
            return cls.load(path)
        except RecordError as error:
            raise UserError.at(
                path,
                f"not usable as a spec: {error}",
                hint="start the run again, which writes the specs again",
            ) from error
