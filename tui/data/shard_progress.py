"""Which samples the job of a shard makes now: of what its spec lists, it leaves one file after the other."""

from __future__ import annotations

from pathlib import Path

from hv15.records.json_values import RecordError
from hv15.records.outputs import LATENTS, enlarged
from hv15.records.paths import ProjectPaths
from hv15.records.shard import ShardPart, failure_beside, parts_of
from hv15.records.spec import Spec


def sample_at_work(root: Path, shard: str) -> str | None:
    """Return the name of the sample that is denoised or decoded now; None if that is not known.

    Args:
        root: the project folder.
        shard: the job's name, such as `sample_shard.0`.
    """
    try:
        parts = parts_of(Spec.load(ProjectPaths(root).spec(shard)))
    except RecordError:
        return None
    failed = {_sample(part) for part in parts if failure_beside(_left(root, part)).exists()}
    in_order = sorted(parts, key=lambda part: part.rule not in _LATENTS)  # all are denoised before any is decoded
    waiting = (part for part in in_order if _sample(part) not in failed)
    return next((_sample(part) for part in waiting if not _left(root, part).exists()), None)


_LATENTS = (LATENTS.rule_of(None), LATENTS.rule_of("step"), LATENTS.enlarging_rule)


def _left(root: Path, part: ShardPart) -> Path:
    """Where the job leaves a product."""
    return root / ProjectPaths().before_taken(part.product)


def _sample(part: ShardPart) -> str:
    """The sample's name; of one of a step, with the step before it; of one that is made larger, that of the larger."""
    name = part.stage.partition(".")[2]
    return enlarged(name) if part.rule.startswith("upsample_") else name
