"""The samples that belong to another: of the same prompt, before or after it, larger or smaller."""

from __future__ import annotations

from collections.abc import Iterable

from hv15.records.outputs import ENLARGED_SUFFIX
from tui.data.samples import Sample


def pair_of(samples: Iterable[Sample], sample: Sample) -> tuple[Sample, Sample] | None:
    """A final sample and what super resolution has made of it; None if one of them is not there.

    Those of the sample itself. Others of its prompt have one pair at most, unless strengths or LoRAs are compared.
    """
    same = _of_prompt(samples, sample)
    smaller = {each.name: each for each in same if each.kind == "final"}
    larger = {each.name.removesuffix(ENLARGED_SUFFIX): each for each in same if each.kind == "enlarged"}
    own = sample.name.removesuffix(ENLARGED_SUFFIX)
    pairs = {name: (small, larger[name]) for name, small in smaller.items() if name in larger}
    return pairs.get(own) or next(iter(pairs.values()), None)


def neighbour(samples: Iterable[Sample], sample: Sample, direction: int) -> Sample | None:
    """The sample of the same prompt before (-1) or after (1) this one, in the order given; None at the end."""
    same = _of_prompt(samples, sample)
    index = next((number for number, each in enumerate(same) if each.path == sample.path), -1) + direction
    return same[index] if 0 <= index < len(same) else None


def _of_prompt(samples: Iterable[Sample], sample: Sample) -> list[Sample]:
    prompt = (sample.prompt_name, sample.experiment)
    return [each for each in samples if (each.prompt_name, each.experiment) == prompt]
