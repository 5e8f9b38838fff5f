"""`runtime:` the machine: device and log level."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from hv15.config.section import SPEED, WATCHING, Section
from hv15.precision import check_device_name


class RuntimeSettings(Section):
    """How hv15 runs on this machine."""

    device: str = Field("auto", json_schema_extra=SPEED)
    """`auto` (a GPU if there is one, else the CPU), `cpu`, `cuda`, or one GPU by number, `cuda:1`. Of several GPUs
    each job takes a free one, unless its number is set."""

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", json_schema_extra=WATCHING)
    """How detailed the log files are."""

    @field_validator("device")
    @classmethod
    def _is_a_device(cls, value: str) -> str:
        return check_device_name(value)
