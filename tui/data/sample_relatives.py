"""The samples that belong to another: of the same prompt, before or after it, larger or smaller."""

from __future__ import annotations

from collections.abc import Iterable

from tui.data.samples import Sample


def pair_of(samples: Iterable[Sample], sample: Sample) -> tuple[Sample, Sample] | None:
    """A final sample and what super resolution has made of it; None if one of them is not there."""
    same = _of_prompt(samples, sample)
    small, large = (next((each for each in same if each.kind == kind), None) for kind in ("final", "enlarged"))
    return (small, large) if small is not None and large is not None else None


def neighbour(samples: Iterable[Sample], sample: Sample, direction: int) -> Sample | None:
    """The sample of the same prompt before (-1) or after (1) this one, in the order given; None at the end."""
    same = _of_prompt(samples, sample)
    index = next((number for number, each in enumerate(same) if each.path == sample.path), -1) + direction
    return same[index] if 0 <= index < len(same) else None


def _of_prompt(samples: Iterable[Sample], sample: Sample) -> list[Sample]:
    prompt = (sample.prompt_name, sample.experiment)
    return [each for each in samples if (each.prompt_name, each.experiment) == prompt]
