"""Stages whose products record what they were made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hv15.records.json_values import JsonObject
from hv15.records.paths import ProjectPaths
from hv15.workflow.made_from import MadeFromReader
from hv15.workflow.stage import Found, Stage, compare


class RecordedStages:
    """Makes the stages of one run from what is wanted and what their products record.

    Args:
        root: the project folder.
        paths: of the run, relative to it.
    """

    def __init__(self, root: Path, paths: ProjectPaths, reader: MadeFromReader) -> None:
        self._root, self._paths, self._reader = root, paths, reader

    def stage(
        self,
        name: str,
        products: Sequence[Path],
        wanted: JsonObject,
        inputs: Mapping[str, Sequence[Path]],
        details: JsonObject | None = None,
    ) -> Stage:
        """Return a stage whose products record what they were made from."""
        records = [self._reader.made_from(self._root / product) for product in products]
        recorded = next((each for each in records if each != wanted), records[0])
        found = compare(self._root, products, recorded, wanted)
        return Stage(name, tuple(products), wanted, found, recorded, inputs, details or {})

    def of_sample(
        self,
        name: str,
        product: Path,
        wanted: JsonObject,
        inputs: Mapping[str, Sequence[Path]],
        details: JsonObject,
    ) -> Stage:
        """Return a stage of a sample: it may have been made by the job of a shard, and not been taken yet."""
        stage = self.stage(name, [product], wanted, inputs, details)
        if stage.found is Found.RIGHT:
            return stage
        made = self._reader.made_from(self._root / self._paths.before_taken(product))
        return replace(stage, is_untaken=made == wanted)
