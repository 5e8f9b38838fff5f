"""Snakemake does what the planner has decided, whatever became of its memory, of file times and of the project's place.

What is decided after each edit of the table (tests/workflow/edits.py) is tested without Snakemake, in test_edits.py.
Here are those edits of which Snakemake has to be told each in another way, on a fresh copy of a prepared project,
followed by one call. The jobs are stand-ins (tests/workflow/stub_hv15.py); what decides is the real thing.
test_incremental.py does a few edits with the real jobs.
"""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from hv15.runs.record import history
from tests.workflow.edits import EDITS, ONE, TWO, Edit
from tests.workflow.finished import PlannedProject
from tests.workflow.project import REPOSITORY
from tests.workflow.quick import QuickProject

Way = Callable[[QuickProject, Path], QuickProject]


@pytest.fixture(scope="session")
def prepared(made_by_snakemake: PlannedProject) -> QuickProject:
    """A project on which everything was made once; each case has a copy."""
    return QuickProject(made_by_snakemake.root)


def check(project: QuickProject, case: Edit, *options: str) -> None:
    """Edit, call once, and compare; then call again, which finds nothing to do."""
    case.edit(project)
    outcome = project.snakemake(*case.options, *options)
    assert outcome.code == 0, outcome.output
    other = {rule: count for rule, count in outcome.jobs.items() if not rule.startswith(("encode", "stage sheet"))}
    assert (other, outcome.clips, outcome.texts) == (case.jobs, case.clips, case.texts), outcome.output


def ids(cases: list[Edit]) -> list[str]:
    return [case.name for case in cases]


SOME = [case for case in EDITS if case.name in ("nothing", "the learning rate", "a clip added")]
"""Enough to see whether a way of losing things matters at all; the whole table runs by `pytest -m exhaustive`."""
TOLD = ("every file touched", "a torn video", "on the command line")
"""File times that mislead; products that are wrong; settings that stand in no file.
(Jobs of shards are in test_shards.py.)"""


def slow_but(*names: str, cases: list[Edit] = EDITS) -> list[ParameterSet]:
    """Cases, those without these names only by `pytest -m slow`."""
    return [pytest.param(case, id=case.name, marks=() if case.name in names else pytest.mark.slow) for case in cases]


def as_it_is(project: QuickProject, _: Path) -> QuickProject:
    return project


def without_memory(project: QuickProject, _: Path) -> QuickProject:
    project.forget()
    return project


def copied_without_hidden_files(project: QuickProject, folder: Path) -> QuickProject:
    return project.copied(folder / "copied", everything=False)


def copied_with_everything(project: QuickProject, folder: Path) -> QuickProject:
    return project.copied(folder / "copied", everything=True)


def moved(project: QuickProject, folder: Path) -> QuickProject:
    return project.moved(folder / "moved elsewhere")


WAYS: list[Way] = [
    as_it_is,
    copied_without_hidden_files,
    copied_with_everything,
    moved,
]
"""What may have happened to a project; each is followed by an edit and one call."""


@pytest.mark.parametrize("case", slow_but(*TOLD))
def test_without_snakemakes_memory(case: Edit, prepared: QuickProject, tmp_path: Path) -> None:
    """The hardest: nothing is known but the files themselves. Then a second call finds nothing to do."""
    project = without_memory(prepared.copied(tmp_path / "project", everything=True), tmp_path)
    check(project, case)
    project.forget()
    again = project.snakemake("-n", *case.options)
    assert "Nothing to be done" in again.output, again.output
    assert "metadata" not in again.output


QUICK_WAYS = {("nothing", moved), ("the learning rate", copied_without_hidden_files)}
SOME_IN_ALL = [
    pytest.param(
        case,
        way,
        id=f"{case.name}-{way.__name__}",
        marks=() if (case.name, way) in QUICK_WAYS else pytest.mark.slow,
    )
    for case in SOME
    for way in WAYS
]


@pytest.mark.parametrize(("case", "way"), SOME_IN_ALL)
def test_a_few_edits_in_every_way(case: Edit, way: Way, prepared: QuickProject, tmp_path: Path) -> None:
    check(way(prepared.copied(tmp_path / "project", everything=True), tmp_path), case)


@pytest.mark.exhaustive
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", EDITS, ids=ids(EDITS))
def test_every_edit_in_every_way(case: Edit, way: Way, prepared: QuickProject, tmp_path: Path) -> None:
    check(way(prepared.copied(tmp_path / "project", everything=True), tmp_path), case)


@pytest.mark.parametrize("case", slow_but("nothing", cases=SOME))
def test_all_of_snakemakes_triggers_say_the_same(case: Edit, prepared: QuickProject, tmp_path: Path) -> None:
    """The profile asks for `mtime` alone; somebody who asks for all of them gets no other answer."""
    project = prepared.copied(tmp_path / "project", everything=True)
    check(project, case, "--rerun-triggers", "mtime", "params", "input", "software-env", "code")


def test_what_snakemake_calls_incomplete_is_complete(prepared: QuickProject, tmp_path: Path) -> None:
    """It remembers jobs that it did not see the end of; their products say better what they are."""
    project = prepared.copied(tmp_path / "project", everything=True)
    markers = project.root / ".snakemake" / "incomplete"
    markers.mkdir(exist_ok=True)
    for product in ("results/train.safetensors", "results/lora.safetensors", "results/samples/one.mp4"):
        (markers / base64.b64encode(product.encode()).decode()).touch()
    assert "Nothing to be done" in project.snakemake().output


def test_a_refusal_is_our_words_alone(prepared: QuickProject, tmp_path: Path) -> None:
    """Whether it is found when the Snakefile is read or in an input function. Nothing stays locked."""
    project = prepared.copied(tmp_path / "project", everything=True)
    said = project.snakemake(target="results/checkpoints/99/one.mp4")
    assert said.code == 1
    (words,) = [line for line in said.output.splitlines() if "error" in line.lower()]
    assert words.startswith("error: the LoRA after step 99 is not kept"), said.output
    for foreign in ("Traceback", "Wildcards", "Exception", "WorkflowError", "in file", "never retrieved"):
        assert foreign not in said.output, said.output
    project.set(train={"learning_rat": 0.3})
    said = project.snakemake()
    assert said.code == 1
    assert "error: " in said.output
    assert "learning_rat: unknown key" in said.output
    assert "WorkflowError" not in said.output
    config = project.root / "config.yaml"
    config.write_text(config.read_text().replace("learning_rat: 0.3", ""))
    assert "Nothing to be done" in project.snakemake().output


def test_a_terminal_shows_our_reasons_alone(prepared: QuickProject, tmp_path: Path) -> None:
    """Snakemake's are file names, and its notes are about its memory, which decides nothing here."""
    project = prepared.copied(tmp_path / "project", everything=True)
    project.forget()
    project.set(train={"learning_rate": 0.3})
    output = project.snakemake().output
    assert "train.learning_rate 0.0001 -> 0.3" in output
    assert not [line for line in output.splitlines() if line.startswith("Reason:") or "provenance" in line], output


def test_a_new_version_of_the_rules_reruns_nothing(prepared: QuickProject, tmp_path: Path) -> None:
    """As after a `git pull` that changes commands and messages, and no value."""
    project = prepared.copied(tmp_path / "project", everything=True)
    program = tmp_path / "program"
    program.mkdir()
    for name in ("Snakefile", "rules", "profiles"):
        source = REPOSITORY / name
        shutil.copytree(source, program / name) if source.is_dir() else shutil.copy(source, program / name)
    for rules in (program / "rules").glob("*.smk"):
        rules.write_text(rules.read_text().replace('"hv15 ', '"true; hv15 '))
    outcome = project.snakemake("-s", str(program / "Snakefile"))
    assert "Nothing to be done" in outcome.output, outcome.output


def test_a_dry_run_of_other_settings_leaves_no_trace(prepared: QuickProject, tmp_path: Path) -> None:
    project = prepared.copied(tmp_path / "project", everything=True)
    specs = {path: path.read_bytes() for path in (project.root / "results/specs").iterdir()}
    runs = history(project.root)
    assert runs
    outcome = project.snakemake("-n", "--config", 'train={"learning_rate": 0.3}')
    assert "train.learning_rate 0.0001 -> 0.3" in outcome.output
    assert history(project.root) == runs
    assert {path: path.read_bytes() for path in (project.root / "results/specs").iterdir()} == specs
    assert "Nothing to be done" in project.snakemake().output


def test_a_failed_training_is_tried_again_beside_new_encodings(prepared: QuickProject, tmp_path: Path) -> None:
    """Snakemake passes over a job's own reasons when anything above it runs: then a training would be forgotten."""
    project = prepared.copied(tmp_path / "project", everything=True)
    project.set(train={"learning_rate": 0.3})
    (project.root / "results/train").mkdir(exist_ok=True)
    (project.root / "fail").touch()
    assert project.snakemake().code != 0
    (project.root / "fail").unlink()
    project.set_prompts(ONE, TWO)
    outcome = project.snakemake()
    assert (outcome.jobs["train"], outcome.texts, outcome.jobs["stage shard"]) == (1, 1, 1), outcome.output


@pytest.mark.slow
def test_two_workflows_fill_one_store_at_the_same_time(tmp_path: Path) -> None:
    projects = [QuickProject.make(tmp_path / name) for name in ("one", "two")]
    for project in projects:
        project.set(cache={"directory": str(tmp_path / "store")})
    runs = [project.begin() for project in projects]
    outcomes = [project.end(run) for project, run in zip(projects, runs, strict=True)]
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    for project in projects:
        assert PlannedProject(project.root).due() == []


def test_the_demo_lists_only_what_a_person_knows(prepared: QuickProject) -> None:
    rules = {line.split()[0] for line in prepared.snakemake("-n", "-F").output.split("-----")[-1].splitlines() if line}
    assert {"encode_latents", "encode_texts", "train", "sample_latents", "sample_video", "publish"} <= rules
    assert not [rule for rule in rules if "spec" in rule or "report" in rule]
