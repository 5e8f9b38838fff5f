"""The input files of each job, by which Snakemake comes to the planner's decisions.

What reaches a job by way of another input is left out, unless its command names it: Snakemake's work grows with the
edges of its graph, and of 100 experiments each sample would name everything that is encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from hv15.records.twins import TWIN
from hv15.sample.prompts import LOW
from hv15.workflow.stage import Stage

_IN_COMMANDS = ("lora", "condition", "latents", LOW, TWIN)
"""Inputs that the rules' commands name."""


class JobInputs:
    """The inputs of a plan's jobs.

    Args:
        stages: all stages by name, each after those that it reads from.
        due: the names of those that run.
        makers: for each product, the stage that makes it.
        spec_of: returns the spec of a stage.
        exists: whether a product is there.
    """

    def __init__(
        self,
        stages: Mapping[str, Stage],
        due: Collection[str],
        makers: Mapping[Path, str],
        spec_of: Callable[[str], Path],
        exists: Callable[[Path], bool],
    ) -> None:
        self._stages, self._due, self._makers = stages, due, makers
        self._spec_of, self._exists = spec_of, exists

    def of_due(self, stage: Stage, shard: Stage | None = None) -> dict[str, list[str]]:
        """Return the inputs of a stage that runs, or of the job of a shard, by name.

        Args:
            shard: the job that makes its product; it runs after what it reads itself.
        """
        reached = self._reached_by_others(stage)
        if shard is not None:
            reached |= self._all_above(shard)
        named = self._named(stage, reached)
        if shard is not None:
            named["shard"] = [*map(str, shard.products)]
        waited_for = reached.union(self._parents(stage))
        after = (self._stages[each] for each in self._nearest_due(stage) if each not in waited_for)
        named["after"] = [str(each.products[0]) for each in after]
        return named

    def of_idle(self, stage: Stage) -> dict[str, list[str]]:
        """Return the inputs of a stage that does not run, without those that are missing and are made by this run."""
        named = self._named(stage, self._reached_by_others(stage))
        return {key: [file for file in files if not self._appears(Path(file))] for key, files in named.items()}

    def _named(self, stage: Stage, reached: Collection[str]) -> dict[str, list[str]]:
        named = {
            key: [str(file) for file in files if key in _IN_COMMANDS or self._makers.get(file) not in reached]
            for key, files in stage.inputs.items()
        }
        return named | {"spec": [str(self._spec_of(stage.name))]}

    def _appears(self, product: Path) -> bool:
        """Whether a file is missing and a running stage makes it."""
        return self._makers.get(product) in self._due and not self._exists(product)

    # -- the graph --------------------------------------------------------------------------------------------------

    def _parents(self, stage: Stage) -> Iterator[str]:
        for files in stage.inputs.values():
            yield from dict.fromkeys(self._makers[file] for file in files if file in self._makers)

    def _reached_by_others(self, stage: Stage) -> set[str]:
        """The stages above a stage that it reaches through another one, so that Snakemake runs them before it.

        Through one that does not run, Snakemake sees nothing of those that do.
        """
        parents = dict.fromkeys(self._parents(stage))
        found = set[str]()
        for parent in parents:
            above = self._above[parent]
            found |= above if parent in self._due else above.difference(self._due)
        return found.intersection(parents)

    def _all_above(self, stage: Stage) -> frozenset[str]:
        """All stages above a stage, or above the job of a shard."""
        parents = set(self._parents(stage))
        return frozenset(parents.union(*(self._above[parent] for parent in parents)))

    @cached_property
    def _above(self) -> dict[str, frozenset[str]]:
        """All stages above each stage."""
        found: dict[str, frozenset[str]] = {}
        for name, stage in self._stages.items():
            parents = set(self._parents(stage))
            found[name] = frozenset(parents.union(*(found.get(parent, frozenset()) for parent in parents)))
        return found

    def _nearest_due(self, stage: Stage) -> Iterator[str]:
        """The stages above a stage that run, with nothing that runs in between; what is above those, they name."""
        waiting, seen = [stage], set[str]()
        while waiting:
            for name in self._parents(waiting.pop()):
                if name in seen:
                    continue
                seen.add(name)
                if name in self._due:
                    yield name
                else:
                    waiting.append(self._stages[name])
