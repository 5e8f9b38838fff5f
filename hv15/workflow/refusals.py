"""Ends Snakemake where a person has to put something right: with our words alone.

What a Snakefile or an input function raises, Snakemake shows with the rule, the wildcards and a traceback, which tell a
person nothing. So the words are logged as its own errors are, and the process ends, as it does after those.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from hv15.errors import UserError

if TYPE_CHECKING:
    from snakemake.workflow import Workflow

FAILED = 1
"""Snakemake's exit code after an error."""


def end_with(workflow: Workflow, error: UserError, refused: Callable[[UserError], None] | None = None) -> NoReturn:
    """End this Snakemake.

    Args:
        workflow: Snakemake's workflow object.
        error: what has to be put right.
        refused: notes it for the record of the run.

    Raises:
        SystemExit: in the process that a person has started; Snakemake lets it pass.
        snakemake.exceptions.WorkflowError: in one that Snakemake has started for a job, and waits for.
    """
    from snakemake.exceptions import WorkflowError
    from snakemake.logging import logger
    from snakemake_interface_logger_plugins.common import LogEvent

    if refused is not None:
        refused(error)
    if not workflow.is_main_process:
        raise WorkflowError(str(error)) from None
    logger.error(f"error: {error}", extra={"event": LogEvent.ERROR, "exception": type(error).__name__})
    raise SystemExit(FAILED)
