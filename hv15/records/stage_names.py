"""Names of stages: `train`, `sample_video.NAME`; those of an experiment begin with its name: `small/train`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hv15.records.paths import RESULTS

FOLDER = "results"
"""The wildcard of a rule for the folder of results of a run, in a project with experiments."""
SETTINGS = "settings"
"""The wildcard for the digest of encoding settings."""
_OTHER_RULE = re.compile(r"_\d+$")


def run_of_folder(folder: str) -> str:
    """Return the experiment whose folder of results this is; "" for the base config's."""
    return folder.removeprefix(RESULTS).strip("/")


def run_of_wildcards(wildcards: Mapping[str, str]) -> str:
    """Return the experiment that a job is for; "" for the base config."""
    return run_of_folder(wildcards.get(FOLDER, RESULTS))


def without_run(wildcards: Mapping[str, str]) -> dict[str, str]:
    """Return the wildcards that are in the name of a job's stage."""
    return {name: value for name, value in wildcards.items() if name not in (FOLDER, SETTINGS)}


def plain_rule(rule: str) -> str:
    """Return the name that a rule has, without the number of one that makes other kinds of files: `train_2`."""
    return _OTHER_RULE.sub("", rule)


def stage_of_run(run: str, stage: str) -> str:
    """Return the name of a stage of a run; "" is the base config."""
    return f"{run}/{stage}" if run else stage


def run_of(name: str) -> str:
    """Return the experiment of a stage; "" if it is one of the base config."""
    return name.rpartition("/")[0]


def within_run(name: str) -> str:
    """Return the name that a stage has in its run: rule and wildcards. Its spec and its log have the same name."""
    return name.rpartition("/")[2]


def rule_of(name: str) -> str:
    """Return the rule of a stage."""
    return within_run(name).partition(".")[0]


def subject_of(name: str) -> str:
    """Return the wildcards of a stage: a sample's name, a shard, a layout."""
    return within_run(name).partition(".")[2]
