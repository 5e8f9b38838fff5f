"""`runtime:` the machine: device, log level, and what jobs on other machines ask for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from hv15.choices import JobNeed, PlannedJob
from hv15.config.section import SPEED, WATCHING, PathText, Section, check_count
from hv15.precision import check_device_name

Asked = Annotated[int, Field(gt=0)]


class RuntimeSettings(Section):
    """How hv15 runs on this machine, and what its jobs ask for on others."""

    device: str = Field("auto", json_schema_extra=SPEED)
    """`auto` (a GPU if there is one, else the CPU), `cpu`, `cuda`, or one GPU by number, `cuda:1`. Of several GPUs
    each job takes a free one, unless its number is set."""

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", json_schema_extra=WATCHING)
    """How detailed the log files are."""

    planned_gpu: str | None = Field(None, min_length=1, max_length=100, json_schema_extra=WATCHING)
    """The GPU for which memory and time are planned, by a name that `hv15 plan --device` knows, such as a100-80gb. On a
    cluster: that of the nodes. This machine's if not set."""

    resources: dict[PlannedJob, dict[JobNeed, Asked]] = Field(default_factory=dict, json_schema_extra=WATCHING)
    """What jobs ask a cluster for, instead of what is planned: kind of job -> mem_mb (10^6 bytes), runtime (minutes),
    threads, e.g. {train: {runtime: 1440, threads: 8}}. The kinds are encode_latents, encode_texts, encode_masks,
    condition (first images), train, sample, decode, upsample, decode_large (super resolution) and convert
    (docs/clusters.md)."""

    container: PathText | None = Field(None, pattern=r"^\S+$", json_schema_extra=WATCHING)
    """The image in which jobs run with `snakemake --sdm apptainer`, without which it is not used: a file such as
    hv15.sif, in the project folder or with its whole path, or docker://REGISTRY/NAME. It has to hold the same hv15
    (docs/clusters.md)."""

    @field_validator("device")
    @classmethod
    def _is_a_device(cls, value: str) -> str:
        return check_device_name(value)

    @field_validator("resources")
    @classmethod
    def _are_possible(cls, value: dict[PlannedJob, dict[JobNeed, int]]) -> dict[PlannedJob, dict[JobNeed, int]]:
        for asked in value.values():
            for number in asked.values():
                check_count(number)
        return value
