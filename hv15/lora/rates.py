"""Learning rates of single layers, chosen by patterns of their names. Does not need torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hv15.lora.names import by_pattern


def rates_of_layers(names: Sequence[str], patterns: Mapping[str, float], rate: float) -> dict[str, float]:
    """Return the learning rate of each layer that gets a LoRA.

    Args:
        names: official names of the layers.
        patterns: `train.learning_rate_patterns`: regular expression -> rate; the first that is found in a name counts.
        rate: of all others.

    Raises:
        UserError: an expression is invalid, is found in no name, or only in those where an earlier one is found.
    """
    return by_pattern("learning_rate_patterns", patterns, names, rate)
