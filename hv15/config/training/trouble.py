"""The settings of `train:` for steps that go wrong."""

from __future__ import annotations

from pydantic import Field

from hv15.config.section import SPEED, Few, Section


class TroubleSettings(Section):
    """What happens when numbers go wrong."""

    max_bad_steps: Few = Field(10, json_schema_extra=SPEED)
    """A step whose loss or gradient is not a finite number changes nothing and is counted. So many in a row end the
    training; its state is saved."""
