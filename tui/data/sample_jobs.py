"""Which cells of the tables of samples the jobs of a run are at."""

from __future__ import annotations

from collections.abc import Iterable

from hv15.records.outputs import enlarged
from hv15.records.rules import Rule
from tui.data.jobs import Job
from tui.data.samples import cell_name


def cells_of(jobs: Iterable[Job]) -> frozenset[str]:
    """The cells of the samples that jobs of their own make."""
    found = set[str]()
    for job in jobs:
        name = job.wildcards.get("name")
        if name is not None and job.rule.startswith(("sample_", "upsample_")):
            found.add(cell_name(enlarged(name) if job.rule.startswith("upsample_") else name))
    return frozenset(found)


def shards_of(jobs: Iterable[Job]) -> tuple[str, ...]:
    """The names of those among the jobs that make several samples, such as `sample_shard.0`."""
    shards = (each for each in jobs if each.rule in (Rule.SAMPLE_SHARD, Rule.UPSAMPLE_SHARD))
    return tuple(f"{each.rule}.{each.wildcards['shard']}" for each in shards if "shard" in each.wildcards)
