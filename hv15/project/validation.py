"""Which files of a dataset are not trained on (`train.validation.fraction`)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from hv15.records.problems import ConfigError, Place, Problem


def held_out(media: Iterable[str], fraction: float) -> frozenset[str]:
    """Return the keys of the media that are held out: those whose hash is below the fraction, but not all, nor none.

    A key stands for a file's content, so all clips of a file are on one side, and a file stays on its side when others
    are added, but for the smallest and the largest hash.

    Raises:
        ConfigError: there is only one medium.
    """
    if not fraction:
        return frozenset()
    places = {key: _place(key) for key in set(media)}
    if len(places) < 2:
        found = "needs at least two different files, one to train on and one to validate on"
        place = Place(setting=("train", "validation", "fraction"))
        raise ConfigError([Problem(found, "add files to `datasets`, or set it to 0", place)])
    order = sorted(places, key=places.__getitem__)
    return frozenset(key for key in order[:-1] if places[key] < fraction or key == order[0])


def _place(key: str) -> float:
    """Return a number from 0 to 1 that depends only on the key, evenly spread over keys."""
    return int(hashlib.sha256(f"validation/{key}".encode()).hexdigest()[:13], 16) / 16**13
