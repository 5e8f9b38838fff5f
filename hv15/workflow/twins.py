"""Stages of several runs that make the same: one of them is made, the others copy its product.

Two experiments with the same training differ perhaps in what they sample; samples without a LoRA are the same in all of
them. Equal is what has to be made from the same (`Stage.wanted`, which holds no names).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from hv15.digest import digest
from hv15.records.json_values import Json, JsonObject
from hv15.records.outputs import OUTPUTS
from hv15.records.paths import ProjectPaths, copy_of_step
from hv15.records.rules import Rule
from hv15.records.twins import TWIN
from hv15.workflow.stage import Found, Stage

_OF_SAMPLES = (rule for output in OUTPUTS for rule in (output.rule, output.enlarging_rule))
COPIED = frozenset({Rule.TRAIN, Rule.SAMPLE_CONDITION, *_OF_SAMPLES})
"""The rules whose products take time to make."""


KEPT = "kept"
"""The entry of a training's details that says which step is published: a copy of it is kept on the way."""


def with_twins(stages: Iterable[Stage], makers: Collection[str], root: Path) -> Iterator[Stage]:
    """Yield the stages, with what has to be made replaced by a copy where another run has it, or makes it before.

    Args:
        stages: those of all runs, each after those that it reads from.
        makers: the runs that were asked for. What others lack is not made in their place.
        root: the project folder.
    """
    found = [*stages]
    copied = [stage for stage in found if stage.rule in COPIED]
    if len({stage.run for stage in copied}) < 2:
        yield from found
        return
    keys = {stage.name: _key(stage) for stage in copied}
    right: dict[str, list[Stage]] = {}
    for stage in copied:
        if stage.found is Found.RIGHT:
            right.setdefault(keys[stage.name], []).append(stage)
    first: dict[tuple[str, Json], Stage] = {}
    for stage in found:
        if stage.name not in keys or stage.found is Found.RIGHT or stage.is_untaken:
            yield stage
            continue
        key, kept = keys[stage.name], stage.details.get(KEPT)
        twin = next((each for each in right.get(key, ()) if _has_kept(each, kept, root)), first.get((key, kept)))
        if stage.run in makers:
            first.setdefault((key, kept), stage)
            first.setdefault((key, None), stage)
        yield stage if twin is None or twin.run == stage.run else _copy(stage, twin)


def _key(stage: Stage) -> str:
    """What is equal in stages that make the same bytes."""
    return digest([stage.rule, stage.wanted, stage.details.get("sample"), len(stage.products)])


def _has_kept(training: Stage, step: Json, root: Path) -> bool:
    """Whether a finished training has a copy of the LoRA after a step; None: no copy is needed."""
    if not isinstance(step, int) or training.details.get(KEPT) == step:
        return True
    return (ProjectPaths(root, training.run).checkpoints / copy_of_step(step)).exists()


def _copy(stage: Stage, twin: Stage) -> Stage:
    details: JsonObject = {**stage.details, TWIN: [str(file) for file in twin.products]}
    inputs: dict[str, tuple[Path, ...]] = {TWIN: twin.products}
    return replace(stage, details=details, inputs=inputs)
