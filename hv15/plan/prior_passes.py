"""How often a training computes what the model predicts without the LoRA."""

from __future__ import annotations

from hv15.errors import UserError
from hv15.project import Project


def prior_share(project: Project) -> float:
    """Return the share of the clips shown, from 0 to 1, for which the model without the LoRA predicts, too.

    Before the encoding it is not known how many clips a file gives: each file counts as one.
    """
    datasets = project.settings.datasets
    if not any(each.targets_prior or each.masked_prior_preservation_weight for each in datasets):
        return 0.0
    try:
        sources = project.dataset.trained_sources
    except UserError:  # reported by others; at most all
        return 1.0
    passes = shown = 0.0
    for each in sources:
        dataset = datasets[each.dataset]
        shown += dataset.num_repeats
        if dataset.targets_prior:
            passes += dataset.num_repeats
        elif dataset.masked_prior_preservation_weight and each.mask:
            passes += dataset.num_repeats * (1 - dataset.unmasked_probability)
    return passes / shown if shown else 1.0
