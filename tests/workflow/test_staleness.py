"""A rerun does only what changed, whatever became of Snakemake's memory, of file times, and of the project's place.

One table of edits (tests/workflow/edits.py), each on a fresh copy of a prepared project, each followed by one call. The
jobs are stand-ins (tests/workflow/stub_hv15.py); what decides is the real thing. tests/workflow/test_incremental.py
does a few of these edits with the real jobs.
"""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hv15.project import Project
from tests.workflow.edits import EDITS, ONE, TWO, Edit, lose_manifests
from tests.workflow.project import REPOSITORY
from tests.workflow.quick import CLIPS, TEXTS, QuickProject

Way = Callable[[QuickProject, Path], QuickProject]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> QuickProject:
    """A project on which everything was made once; each case has a copy."""
    project = QuickProject.make(tmp_path_factory.mktemp("prepared") / "project")
    outcome = project.snakemake()
    assert outcome.code == 0, outcome.output
    assert (outcome.clips, outcome.texts) == (len(CLIPS), TEXTS)
    return project


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


@pytest.mark.parametrize("case", EDITS, ids=ids(EDITS))
def test_without_snakemakes_memory(case: Edit, prepared: QuickProject, tmp_path: Path) -> None:
    """The hardest: nothing is known but the files themselves. Then a second call finds nothing to do."""
    project = without_memory(prepared.copied(tmp_path / "project", everything=True), tmp_path)
    check(project, case)
    project.forget()
    again = project.snakemake("-n", *case.options)
    assert "Nothing to be done" in again.output, again.output
    assert "metadata" not in again.output


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", SOME, ids=ids(SOME))
def test_a_few_edits_in_every_way(case: Edit, way: Way, prepared: QuickProject, tmp_path: Path) -> None:
    check(way(prepared.copied(tmp_path / "project", everything=True), tmp_path), case)


@pytest.mark.exhaustive
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", EDITS, ids=ids(EDITS))
def test_every_edit_in_every_way(case: Edit, way: Way, prepared: QuickProject, tmp_path: Path) -> None:
    check(way(prepared.copied(tmp_path / "project", everything=True), tmp_path), case)


@pytest.mark.parametrize("case", SOME, ids=ids(SOME))
def test_all_of_snakemakes_triggers_say_the_same(case: Edit, prepared: QuickProject, tmp_path: Path) -> None:
    """The profile asks for `mtime` alone; somebody who asks for all of them gets no other answer."""
    project = prepared.copied(tmp_path / "project", everything=True)
    check(project, case, "--rerun-triggers", "mtime", "params", "input", "software-env", "code")


@pytest.mark.parametrize("damage", [lose_manifests, lambda project: project.set(cache={"shards": 3})])
def test_commands_know_what_is_encoded(
    damage: Callable[[QuickProject], None], prepared: QuickProject, tmp_path: Path
) -> None:
    """Whatever became of the manifests: at the latest, the next run makes them again."""
    project = prepared.copied(tmp_path / "project", everything=True)
    damage(project)
    assert project.snakemake().code == 0
    opened = Project(project.root / "config.yaml")
    assert len(opened.latents.entries()) == len(CLIPS)
    assert len(opened.texts.entries()) == TEXTS


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


def test_back_and_forth_between_two_configs_encodes_once(prepared: QuickProject, tmp_path: Path) -> None:
    project = prepared.copied(tmp_path / "project", everything=True)
    tiles, whole = {"vae_sample_size": 128}, {"vae_sample_size": 0}
    found = []
    for settings in (tiles, whole, tiles):
        project.set(cache=settings)
        project.forget()
        outcome = project.snakemake()
        found.append((outcome.clips, outcome.jobs["train"]))
    assert found == [(len(CLIPS), 1), (0, 1), (0, 1)]


def test_a_dry_run_of_other_settings_leaves_no_trace(prepared: QuickProject, tmp_path: Path) -> None:
    project = prepared.copied(tmp_path / "project", everything=True)
    specs = {path: path.read_bytes() for path in (project.root / "results/specs").iterdir()}
    outcome = project.snakemake("-n", "--config", 'train={"learning_rate": 0.3}')
    assert "train.learning_rate 0.0001 -> 0.3" in outcome.output
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


def test_a_clip_of_the_validation_is_encoded_and_trains_nothing(prepared: QuickProject, tmp_path: Path) -> None:
    project = prepared.copied(tmp_path / "project", everything=True)
    others = project.root / "others"
    others.mkdir()
    (others / "elk.mp4").write_bytes(b"the video elk")
    (others / "elk.txt").write_text("an elk that runs")
    own = {"video_directory": "others", "resolution": [64, 64], "target_frames": [9]}
    project.set(train={"validation": {"datasets": [own], "every_n_steps": 1}})
    outcome = project.snakemake()
    assert (outcome.clips, outcome.texts, outcome.jobs["train"]) == (1, 1, 0), outcome.output
    assert "Nothing to be done" in project.snakemake().output


def test_a_changed_mask_is_encoded_alone(prepared: QuickProject, tmp_path: Path) -> None:
    """And the LoRA is trained again, but not sampled with what is still the same text."""
    project = prepared.copied(tmp_path / "project", everything=True)
    project.set(cache={"shards": 1})
    project.snakemake()
    mask = project.clips / "cat.mask.png"
    for content, words in (
        (b"a mask", "clips/cat.mp4 has a mask now"),
        (b"another", "mask of clips/cat.mp4 changed"),
    ):
        mask.write_bytes(content)
        outcome = project.snakemake()
        assert (outcome.clips, outcome.texts) == (0, 0), outcome.output
        assert (outcome.jobs["encode masks"], outcome.jobs["train"]) == (1, 1), outcome.output
        assert words in outcome.output
    assert "Nothing to be done" in project.snakemake().output
    mask.unlink()
    outcome = project.snakemake()
    assert (outcome.jobs["encode masks"], outcome.jobs["train"]) == (0, 1), outcome.output
    assert "clips/cat.mp4 has no mask any more" in outcome.output


def test_a_moving_average_is_published_beside_the_lora(prepared: QuickProject, tmp_path: Path) -> None:
    """It comes with a training of its own, and is restored with the LoRA."""
    project = prepared.copied(tmp_path / "project", everything=True)
    project.set(train={"ema_decay": 0.99})
    assert project.snakemake().jobs["train"] == 1
    results = project.root / "results"
    files = {kind: (results / f"{kind}.ema.safetensors") for kind in ("train", "lora")}
    assert files["lora"].read_bytes() == files["train"].read_bytes()
    files["train"].unlink()
    assert "Nothing to be done" in project.snakemake().output
    assert files["train"].read_bytes() == files["lora"].read_bytes()


def test_a_step_is_published_and_the_last_one_comes_back(prepared: QuickProject, tmp_path: Path) -> None:
    """Nothing is trained for either, not even with the kept copies lost, and the same bytes come back."""
    project = prepared.copied(tmp_path / "project", everything=True)
    results = project.root / "results"
    last = (results / "lora.safetensors").read_bytes()
    project.set(train={"publish_step": 1})
    assert "train.publish_step not set -> 1" in project.snakemake().output
    assert (results / "lora.safetensors").read_bytes() == (results / "checkpoints/1/lora.safetensors").read_bytes()
    shutil.rmtree(results / "train")
    (results / "checkpoints/1/lora.safetensors").unlink()
    project.set_prompts(ONE, TWO)
    outcome = project.snakemake()
    assert (outcome.code, outcome.jobs["stage lora"], outcome.jobs["stage denoise"]) == (0, 0, 1), outcome.output
    project.set(train={"publish_step": None})
    outcome = project.snakemake()
    assert (outcome.code, outcome.jobs["train"], outcome.jobs["stage shard"]) == (0, 0, 1), outcome.output
    assert (results / "lora.safetensors").read_bytes() == last


def test_samples_of_checkpoints_are_made_once(prepared: QuickProject, tmp_path: Path) -> None:
    project = prepared.copied(tmp_path / "project", everything=True)
    outcome = project.snakemake(target="checkpoint_grid")
    of_steps = {"stage lora": 1, "stage shard": 1, "stage grid": 1}
    assert (outcome.code, outcome.jobs) == (0, of_steps), outcome.output
    project.forget()
    assert "Nothing to be done" in project.snakemake("-n", target="checkpoint_grid").output


def test_a_step_that_is_gone_is_refused_with_those_that_are_there(prepared: QuickProject, tmp_path: Path) -> None:
    project = prepared.copied(tmp_path / "project", everything=True)
    (project.root / "results/train/checkpoints/lora-step000001.safetensors").unlink()
    project.set(train={"publish_step": 1})
    outcome = project.snakemake()
    assert outcome.code != 0
    assert "train.publish_step: the LoRA after step 1 is not kept; there are 2" in outcome.output
    project.set(train={"seed": 5})  # another training, which passes that step
    assert project.snakemake("-n").code == 0


def test_two_workflows_fill_one_store_at_the_same_time(tmp_path: Path) -> None:
    projects = [QuickProject.make(tmp_path / name) for name in ("one", "two")]
    for project in projects:
        project.set(cache={"directory": str(tmp_path / "store")})
    runs = [project.begin() for project in projects]
    outcomes = [project.end(run) for project, run in zip(projects, runs, strict=True)]
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    for project in projects:
        assert "Nothing to be done" in project.snakemake().output


def test_the_demo_lists_only_what_a_person_knows(prepared: QuickProject) -> None:
    rules = {line.split()[0] for line in prepared.snakemake("-n", "-F").output.split("-----")[-1].splitlines() if line}
    assert {"encode_latents", "encode_texts", "train", "sample_latents", "sample_video", "publish"} <= rules
    assert not [rule for rule in rules if "spec" in rule or "report" in rule]
