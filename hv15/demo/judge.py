"""Judges what a LoRA changed in samples of the toy world, by comparing the same prompts without it and with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from hv15.demo.measure import measure, scene_of
from hv15.demo.world import CONCEPT, SIZE, Scene
from hv15.sample.contact_sheet import SheetRow


def what_changed(rows: Sequence[SheetRow]) -> str:
    """Return, in words, how many prompts of the concept show it, and how many others have the right colour and motion.

    Prompts that are not of the toy world are ignored, as are samples without a clip to compare with and clips of
    another size; "" if there are no others.
    """
    pairs = [(scene, row) for row in rows if _can_be_measured(row) and (scene := scene_of(row.prompt)) is not None]
    concept = [(scene, row) for scene, row in pairs if scene.motion == CONCEPT]
    others = [(scene, row) for scene, row in pairs if scene.motion != CONCEPT]
    parts = []
    if concept:
        parts.append(f"{CONCEPT}: {_counts(concept, lambda _, clip: measure(clip).motion == CONCEPT)}")
    if others:
        parts.append(f"other prompts right: {_counts(others, lambda scene, clip: measure(clip).moves_as(scene))}")
    return "; ".join(parts)


def _can_be_measured(row: SheetRow) -> bool:
    return all(clip is not None and clip.shape[1:3] == (SIZE, SIZE) for clip in (row.without, row.with_lora))


def _counts(pairs: Sequence[tuple[Scene, SheetRow]], shows: Callable[[Scene, NDArray[np.uint8]], bool]) -> str:
    before = sum(row.without is not None and shows(scene, row.without) for scene, row in pairs)
    after = sum(shows(scene, row.with_lora) for scene, row in pairs)
    return f"{before} of {len(pairs)} samples without the LoRA, {after} of {len(pairs)} with it"
