"""How often a training computes what the model predicts without the LoRA."""

from __future__ import annotations

from collections.abc import Mapping

from hv15.errors import UserError
from hv15.project import Project
from hv15.spans import Span


def prior_share(project: Project, steps: Mapping[Span, int]) -> float:
    """Return the share of the clips shown, from 0 to 1, for which the model without the LoRA predicts, too.

    Before the encoding it is not known how many clips a file gives: each file counts as one.

    Args:
        steps: of each part of the training in which the same datasets take part.
    """
    datasets = project.settings.datasets
    if not any(each.targets_prior or each.masked_prior_preservation_weight for each in datasets):
        return 0.0
    try:
        sources = project.dataset.trained_sources
    except UserError:  # reported by others; at most all
        return 1.0
    passes = 0.0
    for part, count in steps.items():
        shown = of_these = 0.0
        for each in sources:
            dataset = datasets[each.dataset]
            if not dataset.span.has(part.start):
                continue
            shown += dataset.num_repeats
            if dataset.targets_prior:
                of_these += dataset.num_repeats
            elif dataset.masked_prior_preservation_weight and each.mask:
                of_these += dataset.num_repeats * (1 - dataset.unmasked_probability)
        passes += count * (of_these / shown if shown else 1.0)
    return passes / sum(steps.values())
