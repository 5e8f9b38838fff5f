"""What the Snakefile gets from hv15.workflow: settings of the command line, and the refusal of a second run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hv15.environment import RUN_VARIABLE
from hv15.errors import UserError
from hv15.records.json_values import Json
from hv15.runs import lock
from hv15.runs.control import refuse_living_run
from hv15.workflow.command_line import changed_settings


@pytest.mark.parametrize(
    ("merged", "changes"),
    [
        ({"task": "t2v", "train": {"seed": 1, "rank": 2}}, {}),
        ({"task": "i2v", "train": {"seed": 1, "rank": 2}}, {"task": "i2v"}),
        ({"task": "t2v", "train": {"seed": 7, "rank": 2}}, {"train": {"seed": 7}}),
        ({"task": "t2v", "train": {"seed": 1, "rank": 2}, "cache": {"shards": 2}}, {"cache": {"shards": 2}}),
        ({"task": "t2v", "train": {"seed": 1, "rank": None}}, {"train": {"rank": None}}),
    ],
)
def test_what_the_command_line_adds_to_the_file(
    tmp_path: Path, merged: dict[str, Json], changes: dict[str, Json]
) -> None:
    """Snakemake merges the two, and hv15 needs them apart: a mistake in the file is named at its line."""
    config = tmp_path / "config.yaml"
    config.write_text("task: t2v\ntrain: {seed: 1, rank: 2}\n")
    assert changed_settings(config, merged) == changes


def test_a_second_run_is_refused_and_a_runs_own_snakemake_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_living_run(tmp_path)
    descriptor = lock.take(tmp_path, "first")
    assert descriptor is not None
    try:
        with pytest.raises(UserError, match="first") as caught:
            refuse_living_run(tmp_path)
        assert "hv15 stop" in caught.value.hint
        monkeypatch.setenv(RUN_VARIABLE, "first")
        refuse_living_run(tmp_path)
    finally:
        os.close(descriptor)
