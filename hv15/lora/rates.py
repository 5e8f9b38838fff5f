"""Learning rates of single layers, chosen by patterns of their names. Does not need torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hv15.errors import UserError
from hv15.lora.names import matching
from hv15.patterns import Searches

_SETTING = "learning_rate_patterns"


def rates_of_layers(names: Sequence[str], patterns: Mapping[str, float], rate: float) -> dict[str, float]:
    """Return the learning rate of each layer that gets a LoRA.

    Args:
        names: official names of the layers.
        patterns: `train.learning_rate_patterns`: regular expression -> rate; the first that is found in a name counts.
        rate: of all others.

    Raises:
        UserError: an expression is invalid, is found in no name, or only in those where an earlier one is found.
    """
    searches, rates = Searches(), dict[str, float]()
    for pattern, its_rate in patterns.items():
        found = matching(_SETTING, pattern, names, searches)
        if found <= rates.keys():
            raise UserError(
                f"train.{_SETTING}: {pattern!r:.200} has no effect: earlier patterns are found in all of its layers",
                hint="put it before them: the first pattern that is found in a layer's name counts",
            )
        rates = {**dict.fromkeys(found, its_rate), **rates}
    return {name: rates.get(name, rate) for name in names}
