"""The settings of `train:` for what is saved while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from hv15.config.section import FUTURE, PUBLISHING, WATCHING, Conflict, Many, Section


class SavingSettings(Section):
    """What is saved while training."""

    save_every_n_epochs: Many | None = Field(None, json_schema_extra=WATCHING)
    """Keep a copy of the LoRA every so many epochs."""

    save_every_n_steps: Many | None = Field(None, json_schema_extra=WATCHING)
    """Keep a copy of the LoRA every so many steps."""

    save_last_n_epochs: Many | None = Field(None, json_schema_extra=WATCHING)
    """Of the copies made by epochs, keep only the last so many; all if not set."""

    save_last_n_steps: Many | None = Field(None, json_schema_extra=WATCHING)
    """Of the copies made by steps, keep only the last so many; all if not set."""

    state_every_n_steps: Many = Field(250, json_schema_extra=WATCHING)
    """Save the whole state, from which a killed training resumes, every so many steps. The last two are kept."""

    save_precision: Literal["float32", "bfloat16"] = Field("float32", json_schema_extra=FUTURE)
    """Number format of the LoRA file. bfloat16 halves its size with little loss."""

    publish_step: Many | None = Field(None, json_schema_extra=PUBLISHING)
    """Publish the LoRA as it was after this step, with its samples and conversions, instead of that after the last one.
    The training keeps its copy of this step, whatever the settings above say; of one that is done, it must have kept
    it. `hv15 pick` sets this."""

    def conflicts(self) -> Iterator[Conflict]:
        yield from super().conflicts()
        for unit in ("epochs", "steps"):
            if getattr(self, f"save_last_n_{unit}") is not None and getattr(self, f"save_every_n_{unit}") is None:
                yield (f"save_last_n_{unit}",), f"has no effect without save_every_n_{unit}"
