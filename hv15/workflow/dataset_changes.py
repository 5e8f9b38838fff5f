"""How two datasets differ, in words."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from hv15.records.trained_dataset import TrainedDataset, TrainedPair
from hv15.workflow.differences import first_few


def dataset_changes(
    former: TrainedDataset, now: TrainedDataset, validated: Collection[str] = frozenset()
) -> Iterator[str]:
    """How two datasets differ, by the names of their files; `validated` are those that are not trained on now."""
    old, new = ({pair.name: pair for pair in each.pairs} for each in (former, now))
    added, gone = [name for name in new if name not in old], [name for name in old if name not in new]
    renamed = {_content(old[name]) for name in gone}
    yield from first_few([name for name in added if _content(new[name]) not in renamed], "new clip {}")
    kept = {_content(new[name]) for name in added}
    gone = [name for name in gone if _content(old[name]) not in kept]
    yield from first_few([name for name in gone if name in validated], "clip {} is for validation now")
    yield from first_few([name for name in gone if name not in validated], "clip {} was removed")
    both = [(old[name], new[name]) for name in new if name in old]
    yield from first_few([after.name for before, after in both if before.media != after.media], "{} changed")
    yield from first_few(
        [after.name for before, after in both if before.caption != after.caption], "caption of {} changed"
    )
    for words, is_so in (
        ("{} has a mask now", lambda before, after: not before.mask and after.mask),
        ("{} has no mask any more", lambda before, after: before.mask and not after.mask),
        ("mask of {} changed", lambda before, after: before.mask and after.mask and before.mask != after.mask),
    ):
        yield from first_few([after.name for before, after in both if is_so(before, after)], words)
    if sum(before.dataset != after.dataset for before, after in both):
        yield "the way a dataset's clips are cut or weighted changed"


def _content(pair: TrainedPair) -> tuple[str, str, str, str]:
    return pair.media, pair.caption, pair.dataset, pair.mask
