"""What `hv15 check` says of experiments: their settings, and what they need beside the base config."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from hv15.commands.checks import beforehand_checks, dataset_checks, failed, model_checks, publish_checks, sample_checks
from hv15.errors import UserError
from hv15.project import Project
from hv15.records.checks import Check, problem_checks
from hv15.records.problems import ConfigError

_OF_THE_MODELS = (
    "blocks_to_swap",
    "quantize",
    "optimizer_type",
    "dtype",
    "attn_mode",
    "context_parallel",
    "sage_blocks",
)
"""Settings of `train` and `sample` that are compared with the models' headers, which takes seconds."""

Part = Callable[[Project], Iterator[Check]]


def experiment_checks(base: Project, told: Iterable[Check]) -> Iterator[Check]:
    """Yield what is wrong with experiments, or worth a note, each thing once, and how many there are.

    Args:
        told: what was said of the base config, which is not said again.
    """
    if not base.experiments:
        return
    try:
        base.check_experiments()
    except ConfigError as error:
        yield from problem_checks(error)
        return
    seen, wrong = {_content(each) for each in told}, False
    for name in base.experiments:
        project = base.experiment(name)
        for check in _checks_of(project):
            if check.state == "ok" or _content(check) in seen:
                continue
            seen.add(_content(check))
            wrong = wrong or check.state == "problem"
            yield replace(check, message=f"in {name}: {check.message}")
    if not wrong:
        yield Check("ok", "experiments", f"{len(base.experiments)}, all can be made")


def _content(check: Check) -> tuple[str, str, str]:
    return check.state, check.subject, check.message


def _checks_of(project: Project) -> Iterator[Check]:
    base = project.experiment("")
    parts: dict[str, Part] = {"beforehand": beforehand_checks, "sample": sample_checks, "publish": publish_checks}
    if project.models is not base.models or _changes_models(project):
        parts["models"] = model_checks
    if project.dataset is not base.dataset:
        parts["dataset"] = dataset_checks
    for subject, find in parts.items():
        try:
            yield from find(project)
        except ConfigError as error:
            yield from problem_checks(error, subject)
        except UserError as error:
            yield failed(subject, error)


def _changes_models(project: Project) -> bool:
    changes = project.experiments[project.run].changes
    return any(part in _OF_THE_MODELS for change in changes for part in change.setting)
