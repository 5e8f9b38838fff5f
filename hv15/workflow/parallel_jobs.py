"""How many jobs that sample Snakemake runs at the same time, as far as its limits say."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.workflow import Workflow

    from hv15.config import Settings


def sampling_jobs(workflow: Workflow, settings: Settings) -> int:
    """Return how many sampling jobs can run at the same time, at least 1; 0 if there is no limit.

    On this machine: one for each GPU, or for each `context_parallel` of them, as far as `--cores` allows. Without a GPU
    one, because one job uses all cores. On other machines: `--jobs`, and `--resources gpu=N` if it is given.
    """
    gpus = _limit(workflow, "gpu") if settings.runtime.device != "cpu" else None
    limits = [None if gpus is None else gpus // settings.sample.context_parallel]
    if workflow.non_local_exec:
        limits.append(_limit(workflow, "_nodes"))
    else:
        limits += [_limit(workflow, "_cores"), 1 if gpus is None else None]
    return max(1, min(known)) if (known := [limit for limit in limits if limit is not None]) else 0


def _limit(workflow: Workflow, name: str) -> int | None:
    """One of Snakemake's limits of all jobs together; None if there is none."""
    found = workflow.global_resources.get(name)
    value = getattr(found, "value", found)  # a number until Snakemake has taken it
    return value if isinstance(value, int) else None
