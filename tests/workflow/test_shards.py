"""Several samples that are due are made by one job for each device, and stay samples with files of their own.

The jobs are stand-ins (tests/workflow/stub_hv15.py), some without Snakemake (tests/workflow/finished.py);
tests/commands/test_shard.py is about the real one.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from hv15 import cli
from hv15.records.json_values import JsonObject
from hv15.records.outputs import IMAGES, LATENTS, VIDEO
from hv15.records.paths import ProjectPaths
from hv15.records.shard import parts_of
from hv15.records.spec import Spec
from hv15.workflow import make_planner
from hv15.workflow.planner import Planner
from hv15.workflow.shards import make_shards
from hv15.workflow.stage import Found, Stage
from tests.workflow.edits import ONE, TWO
from tests.workflow.finished import PlannedProject, open_project
from tests.workflow.quick import Outcome

THREE: dict[str, object] = {"name": "three", "prompt": "a green star"}
FOUR: dict[str, object] = {"name": "four", "prompt": "a white dot"}
PATHS = ProjectPaths()
NEW = ("two", "three", "four")
EACH = {"stage denoise": 1, "stage decode": 1}


@pytest.fixture
def project(made_by_snakemake: PlannedProject, tmp_path: Path) -> PlannedProject:
    """A project of which Snakemake made everything, and in which three samples are due."""
    project = made_by_snakemake.copied(tmp_path / "project", everything=True)
    project.set_prompts(ONE, TWO, THREE, FOUR)
    return project


def sampling(outcome: Outcome) -> dict[str, int]:
    """The commands that sample."""
    assert outcome.code == 0, outcome.output
    return of_samples(outcome)


def of_samples(outcome: Outcome) -> dict[str, int]:
    return {name: count for name, count in outcome.jobs.items() if name.startswith("stage") and "sheet" not in name}


def files(project: PlannedProject) -> list[str]:
    """The samples' files, and whatever was left beside them."""
    folder = project.root / "results/samples"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def of(*names: str) -> list[str]:
    made = [f"{name}{output.suffix}" for name in names for output in (VIDEO, LATENTS)]
    return sorted([*made, "contact_sheet.png"])


def test_those_that_are_due_are_made_by_one_job(project: PlannedProject) -> None:
    outcome = project.snakemake()
    assert sampling(outcome) == {"stage shard": 1}
    assert "two, three and four are due" in outcome.output
    assert files(project) == of("one", *NEW)
    assert project.due() == []


@pytest.mark.slow
def test_the_triggers_of_snakemake_agree(project: PlannedProject) -> None:
    """Except for the set of input files, which is another one while something above a job runs."""
    triggers = ("--rerun-triggers", "mtime", "params", "software-env", "code")
    assert sampling(project.snakemake(*triggers)) == {"stage shard": 1}
    assert project.snakemake(*triggers).jobs == {}


def test_one_alone_is_made_by_its_own_jobs(project: PlannedProject) -> None:
    project.make_due()
    for path in (project.root / "results/samples").glob("two.*"):
        path.unlink()
    assert sampling(project.make_due()) == EACH
    project.set_prompts(ONE, TWO, {**THREE, "seed": 5}, FOUR)
    assert sampling(project.make_due()) == EACH
    assert files(project) == of("one", *NEW)


def test_a_target_of_one_makes_it_alone(project: PlannedProject) -> None:
    outcome = project.snakemake(target="results/samples/three.mp4")
    assert sampling(outcome) == EACH
    assert set(files(project)) & {"two.mp4", "three.mp4", "four.mp4"} == {"three.mp4"}
    assert sampling(project.make_due("samples")) == {"stage shard": 1}
    assert files(project) == of("one", *NEW)


def test_only_the_decoding_may_be_due(project: PlannedProject) -> None:
    project.make_due()
    stamps = {path: path.stat().st_mtime_ns for path in (project.root / "results/samples").glob("*.safetensors")}
    project.set(sample={"fps": 12})
    assert sampling(project.make_due()) == {"stage shard": 1}
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert project.due() == []


def test_one_that_fails_stops_no_other(project: PlannedProject) -> None:
    (project.root / "fail-three").touch()
    outcome = project.snakemake()
    assert outcome.code != 0
    assert of_samples(outcome) == {"stage shard": 1}  # and the failed one's own job, which notes nothing
    assert {"two.mp4", "four.mp4"} <= set(files(project))
    assert "three.mp4" not in files(project)
    again = project.snakemake()
    assert (again.code, of_samples(again)) == (1, {})
    (project.root / "fail-three").unlink()
    assert sampling(project.make_due()) == EACH
    assert files(project) == of("one", *NEW)


def test_what_a_stopped_job_has_finished_is_kept(project: PlannedProject) -> None:
    """It is taken by the next call for it, and stays as long as there is none."""
    (project.root / "stop").touch()
    assert project.make_due().code != 0
    assert "two.mp4" not in files(project)
    (project.root / "stop").unlink()
    assert sampling(project.make_due("results/samples/four.mp4")) == EACH
    outcome = project.make_due()
    assert sampling(outcome) == EACH, "three is made alone, two was there"
    assert files(project) == of("one", *NEW)


def test_what_was_left_of_another_config_is_never_taken(project: PlannedProject) -> None:
    (project.root / "stop").touch()
    project.make_due()
    (project.root / "stop").unlink()
    project.set_prompts(ONE, {**TWO, "seed": 5}, THREE)
    assert sampling(project.make_due()) == {"stage shard": 1}
    assert files(project) == of("one", "two", "three")


@pytest.mark.slow
def test_snakemake_can_be_told_to_make_one_anyway(project: PlannedProject) -> None:
    project.make_due()
    outcome = project.snakemake("-f", target="results/samples/two.mp4")
    assert sampling(outcome) == {"stage decode": 1}


def test_why_tells_each_sample(project: PlannedProject, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["why", str(project.root)]) == 0
    said = capsys.readouterr().out
    assert "shard" not in said.replace("encode captions and prompts, shard", "")
    assert all(f"sample {name}" in said and f"decode to video {name}" in said for name in NEW)


@pytest.mark.slow
def test_each_gpu_has_a_shard(project: PlannedProject, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = uuid.uuid4().hex
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"{mark}-a,{mark}-b")
    project.set_prompts(ONE, TWO, THREE, FOUR, {"name": "five", "prompt": "a ring"})
    assert sampling(project.snakemake()) == {"stage shard": 2}
    assert files(project) == of("one", *NEW, "five")


def test_samples_of_checkpoints_share_one(project: PlannedProject) -> None:
    project.make_due()
    [shard] = make_planner(open_project(project), targets=("checkpoint_grid",), devices=1).shards.values()
    assert shard.words == "one of step 1, two of step 1, three of step 1 and 5 more are due"
    assert sampling(project.make_due("checkpoint_grid")) == {"stage lora": 1, "stage shard": 1, "stage grid": 1}
    assert project.due("checkpoint_grid") == []


@pytest.mark.slow
def test_first_images_are_encoded_together_before_the_training(project: PlannedProject) -> None:
    """Its previews need them, and the samples need its LoRA."""
    for number, name in enumerate(NEW):
        Image.new("RGB", (64, 64), (80 * number, 0, 0)).save(project.root / f"{name}.png")
    prompts = [{**each, "image_path": f"{each['name']}.png"} for each in (TWO, THREE, FOUR)]
    project.set_prompts(*prompts)
    project.set(task="i2v", train={"preview_every_n_steps": 1, "preview": {"video_size": [32, 32]}})
    outcome = project.snakemake()
    assert sampling(outcome) == {"stage shard": 2}
    ran = (project.root / "ran.log").read_text().splitlines()
    order = [line.split()[0] for line in ran if line.startswith(("train", "stage shard"))]
    assert order == ["stage", "train", "stage"]
    first = sorted(path.name for path in (project.root / "results/samples").glob("*.condition.safetensors"))
    assert first == sorted(f"{name}{end}.condition.safetensors" for name in NEW for end in ("", ".preview"))
    assert project.due() == []


@pytest.mark.slow
def test_a_training_and_its_samples_in_one_call(project: PlannedProject) -> None:
    project.set(train={"learning_rate": 0.3}, sample={"with_base": True})
    outcome = project.snakemake()
    assert sampling(outcome) == {"stage shard": 1}
    assert outcome.jobs["train"] == 1
    assert project.due() == []


# -- how they are divided -------------------------------------------------------------------------------------------


def stage(name: str, product: Path, details: JsonObject | None = None, **inputs: Path) -> Stage:
    read = {key: [file] for key, file in inputs.items()}
    return Stage(name, (product,), {"of": name}, Found.MISSING, None, read, details or {})


def sample(name: str, *, steps: int = 10, untaken: tuple[str, ...] = (), rule: str = "sample") -> list[Stage]:
    """A sample's latents and its video."""
    content: JsonObject = {"sample": {"frames": 5, "height": 8, "width": 8, "steps": steps, "guidance_scale": 1.0}}
    latents, video = Path(f"results/samples/{name}.latents"), Path(f"results/samples/{name}.mp4")
    made = [
        stage(f"{rule}_latents.{name}", latents, content, lora=Path("lora"), text=Path("text")),
        stage(f"{rule}_video.{name}", video, content, latents=latents),
    ]
    return [replace(each, is_untaken=each.rule.partition("_")[2] in untaken) for each in made]


def divided(*samples: list[Stage], devices: int = 1) -> list[tuple[str, ...]]:
    shards = make_shards([stage for each in samples for stage in each], devices)
    return [shard.samples for shard in shards]


def test_shares_of_about_equal_work() -> None:
    samples = [sample("a", steps=90), *(sample(name) for name in "bcdefg"), sample("h", steps=50)]
    assert divided(*samples) == [tuple("abcdefgh")]
    assert divided(*samples, devices=2) == [("a", "f"), ("b", "c", "d", "e", "g", "h")]
    assert divided(*samples, devices=0) == []


def test_a_device_with_one_sample_needs_no_shard() -> None:
    assert divided(sample("a")) == []
    assert divided(sample("a"), sample("b"), devices=2) == []
    assert divided(sample("a"), sample("b"), sample("c"), devices=2) == [("a", "c")]


def test_what_is_made_and_only_waits_to_be_taken_is_no_work() -> None:
    whole, half = sample("a", untaken=("latents", "video")), sample("b", untaken=("latents",))
    assert divided(whole, half, sample("c")) == [("b", "c")]
    assert divided(whole, half) == []


def test_a_step_and_a_name_of_the_same_letters_are_two_samples() -> None:
    assert divided(sample("3.base"), sample("3.base", rule="checkpoint")) == [("3.base", "base of step 3")]


def test_what_a_shard_reads_and_makes() -> None:
    """Not what it makes itself; its samples' jobs wait for it, and it waits for what they would wait for."""
    text = stage("encode_texts.0", Path("text"))
    planner = Planner(PATHS, [text, *sample("a"), *sample("b")], devices=1)
    assert list(planner.shards) == ["sample_shard.0"]
    named, plain = planner.inputs("sample_shard.0")
    assert plain
    assert named == {
        "lora": ["lora"],
        "text": ["text"],
        "spec": ["results/specs/sample_shard.0.json"],
        "after": [],
    }
    made = "results/samples/.untaken/sample_shard.0.json"
    for name in ("sample_latents.a", "sample_video.b"):
        assert planner.inputs(name)[0]["shard"] == [made]
    assert "shard" not in planner.inputs("encode_texts.0")[0]
    parts = parts_of(Spec({}, planner.shards["sample_shard.0"].stage.details))
    assert [part.stage for part in parts] == [
        *("sample_latents.a", "sample_video.a"),
        *("sample_latents.b", "sample_video.b"),
    ]
    assert parts[1].inputs == {"latents": Path("results/samples/a.latents")}


def test_a_sample_names_nothing_that_the_job_of_its_shard_waits_for() -> None:
    """Of 100 experiments each sample would name all models and encodings; what its command reads is named."""
    models = tuple(Path(f"model-{number}") for number in range(3))
    copied = Stage("demo_models", models, {}, Found.MISSING)
    text = stage("encode_texts.0", Path("text"), models=models[0])
    planner = Planner(PATHS, [copied, text, *sample("a"), *sample("b")], devices=1)
    alone = Planner(PATHS, [copied, text, *sample("a")], devices=1)
    shard, named = (planner.inputs(name)[0] for name in ("sample_shard.0", "sample_latents.a"))
    by_itself = alone.inputs("sample_latents.a")[0]
    assert (shard["text"], shard["after"]) == (["text"], []), "the models come before the texts"
    assert (named["lora"], named["text"], named["after"]) == (["lora"], [], [])
    assert (by_itself["text"], "shard" in by_itself) == (["text"], False)


def test_names_beside_a_products_place() -> None:
    place = PATHS.before_taken(IMAGES.path(PATHS, "{name}", "{step}"))
    assert place == Path("results/samples/.untaken/checkpoints/{step}/{name}.frames")
