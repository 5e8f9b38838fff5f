"""Why the job of a shard could not make a file: left beside its place, raised by the sample's own job."""

from __future__ import annotations

import contextlib
from pathlib import Path

from hv15.atomic import write_json
from hv15.errors import UserError
from hv15.out_of_memory import OutOfMemory
from hv15.records.json_values import RecordError, parse_object, text_of
from hv15.records.paths import ProjectPaths
from hv15.records.shard import failure_beside


def leave_failure(out: Path, error: UserError) -> None:
    """Leave the error for the sample's own job. When memory was not enough, leave none: that job tries again alone."""
    if not isinstance(error, OutOfMemory):
        content = {"message": error.message, "hint": error.hint, "place": error.place}
        write_json(failure_beside(out), content, durable=False)


def raise_failure(product: Path, paths: ProjectPaths) -> None:
    """Raise what the job of a shard has left instead of a product, once.

    Args:
        product: as the workflow names it, relative to the project folder.

    Raises:
        UserError: there is such an error.
    """
    if product.is_absolute() or not product.is_relative_to(paths.results):
        return
    file = failure_beside(paths.before_taken(product))
    try:
        content = parse_object(file.read_bytes())
    except (OSError, RecordError):
        return
    with contextlib.suppress(OSError):
        file.unlink()
    message, *lines = text_of(content, "message").split("\n")
    raise UserError(message, lines=lines, hint=text_of(content, "hint"), place=text_of(content, "place"))
