"""A spec: what one product has to be made from. The planner writes it, the product's job reads it.

The product tells in its own metadata what it was made from (`made_from`). It is right exactly when that equals the
`wanted` of its spec; so whether something is out of date never depends on what Snakemake remembers.
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
    """Everything that its content depends on, without names and places. The product will tell this of itself."""
    details: JsonObject = field(default_factory=dict)
    """What its job has to know besides, such as the paths of what is read."""
    runs: bool = False
    """Whether the job was to run when this was written."""
    planned: int = 0
    """Nanoseconds since 1970 when a wrong product was to be replaced, so that each such spec is a new file."""

    def write(self, path: Path) -> None:
        """Write it atomically.

        Raises:
            UserError: the disk is full, or the folder cannot be written.
        """
        content = {"version": VERSION, "wanted": self.wanted, "details": self.details, "runs": self.runs}
        write_json(path, content | ({"planned": self.planned} if self.planned else {}), durable=False)

    @classmethod
    def load(cls, path: Path) -> Spec:
        """Read one.

        Raises:
            RecordError: it is missing, torn, or of another version.
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
        """Read the spec of a job.

        Raises:
            UserError: it is missing, torn, or of another version.
        """
        try:
            return cls.load(path)
        except RecordError as error:
            raise UserError(
                f"{path}: not usable as a spec: {error}",
                hint="start the run again: it writes the specs anew",
            ) from error
