"""A training's spec consists of its past, on which the finished steps depend, and of its future.

A training is known by the digest of its past: its folder and its states belong to that. So an edit that concerns only
the future, such as a greater length, continues the training. Of which part a setting is, is marked at each of them
(`hv15.config.section`).
"""

from __future__ import annotations

from collections.abc import Mapping

from hv15.config import TrainSettings
from hv15.config.fields import affects
from hv15.config.section import Affects
from hv15.records.json_values import Json, JsonObject, as_object
from hv15.train.schedules import depends_on_length

_OF_THE_PAST = {Affects.PAST, Affects.NETWORK, Affects.ORIGIN, Affects.APART}


def past_of(options: TrainSettings, spec: Mapping[str, Json]) -> JsonObject:
    """Return the past of a training.

    Args:
        options: the settings of the training, which decide whether its length is of the past.
        spec: of this training, or of another one that is to be compared with it.
    """
    of_the_past = _OF_THE_PAST | ({Affects.LENGTH} if depends_on_length(options) else set())
    train = as_object(spec.get("train", {}))
    kept = {
        name: value
        for name, value in train.items()
        if name not in TrainSettings.model_fields or affects(TrainSettings, name) in of_the_past
    }
    return {**spec, "train": kept}
