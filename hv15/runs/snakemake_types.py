"""What we need of Snakemake's own objects, which have no types that a type checker sees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol


class SnakemakeRule(Protocol):
    """What we need of a rule of Snakemake's."""

    name: str


class SnakemakeJob(Protocol):
    """What we need of a job of Snakemake's."""

    jobid: int
    rule: SnakemakeRule
    wildcards_dict: Mapping[str, str]
    message: str | None
    log: Iterable[object]
    output: Iterable[object]


class SnakemakeDag(Protocol):
    """What we need of Snakemake's plan."""

    def needrun_jobs(self) -> Iterable[SnakemakeJob]: ...

    def toposorted(self) -> Iterable[Iterable[SnakemakeJob]]: ...

    def reason(self, job: SnakemakeJob, /) -> object: ...


class SnakemakeWorkflow(Protocol):
    """What we need of the `workflow` in a Snakefile."""

    is_main_process: bool
    dryrun: bool
    overwrite_configfiles: Sequence[str | Path]
    dag: SnakemakeDag
