"""What an edit of a setting does to a training, in words, by the setting's mark (`hv15.config.section`)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from hv15.config.section import Affects

_ANEW = "starts the training anew, unless train.continue_from is set"

AFTER_EDIT: Mapping[Affects, str] = MappingProxyType(
    {
        Affects.PAST: f"a change {_ANEW}",
        Affects.NETWORK: "a change starts the training anew",
        Affects.WEIGHT: f"a change {_ANEW}",
        Affects.CAPTION: f"another caption {_ANEW}",
        Affects.PLACE: f"another content of its files {_ANEW}",
        Affects.STEP: f"another product of num_processes and gradient_accumulation_steps {_ANEW}",
        Affects.ORIGIN: "a change starts the training anew, from what this names",
        Affects.LENGTH: "a greater one continues the training, unless the learning rate depends on the length",
        Affects.FUTURE: "a change continues the training",
        Affects.WATCHING: "a change continues the training, and changes nothing in the LoRA",
        Affects.MEASURING: "a change continues the training; with train.validation.patience it starts it anew",
        Affects.SPEED: "a change affects no result, and a training continues",
        Affects.PUBLISHING: "a change trains nothing",
        Affects.SAMPLING: "a change trains nothing",
    }
)
"""Of every mark but `APART`, whose settings have marks of their own."""


def after_edit(mark: Affects | None) -> str:
    """Return what an edit of a setting with this mark does to a training; "" if it has nothing to do with one."""
    return AFTER_EDIT.get(mark, "") if mark is not None else ""
