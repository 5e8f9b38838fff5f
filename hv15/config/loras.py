"""A LoRA file and its strength, as several sections name it."""

from __future__ import annotations

from hv15.config.section import PathText, Section


class LoraSettings(Section):
    """A LoRA file that is used in addition to the trained one."""

    path: PathText
    """The LoRA file, in any format that `hv15 convert` reads."""

    multiplier: float = 1.0
    """Its strength: 1 = as trained, 0 = off, negative = the opposite."""
