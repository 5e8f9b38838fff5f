"""What has to run, and what Snakemake sees, decided from stages that are made by hand."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from hv15.errors import UserError
from hv15.records import outputs
from hv15.records.json_values import JsonObject
from hv15.records.paths import ProjectPaths, average_of
from hv15.records.spec import Spec
from hv15.workflow.planner import Planner, refuse_folders
from hv15.workflow.stage import Found, Stage

PATHS = ProjectPaths()
MANIFEST, TRAINED, LORA = Path("results/manifests/latents/s/0-of-1.json"), PATHS.trained, PATHS.lora
LATENTS, VIDEO = outputs.LATENTS.path(PATHS, "a"), outputs.VIDEO.path(PATHS, "a")
COMFYUI = PATHS.converted("comfyui")

ALL = [
    "encode_latents.0",
    "train",
    "sample_latents.a",
    "sample_video.a",
    "convert.comfyui",
    "publish",
    "report",
    "plan",
]

RIGHT, MISSING, WRONG = Found


def stages(**found: Found) -> list[Stage]:
    """A project with one of everything; what is not named is right. Dots in names are underscores here."""

    def stage(name: str, product: Path, **inputs: Sequence[Path]) -> Stage:
        state = found.get(name.replace(".", "_"), RIGHT)
        recorded: JsonObject | None = {"of": name} if state is RIGHT else None
        follows = {"publish": ("others",), "report": ("lora", "samples")}.get(name, ())
        return Stage(name, (product,), {"of": name}, state, recorded, inputs, follows=follows)

    return [
        stage("encode_latents.0", MANIFEST),
        stage("train", TRAINED, manifests=[MANIFEST], models=[Path("given.safetensors")]),
        stage("sample_latents.a", LATENTS, lora=[TRAINED]),
        stage("sample_video.a", VIDEO, latents=[LATENTS]),
        stage("convert.comfyui", COMFYUI, lora=[TRAINED]),
        stage("publish", LORA, lora=[TRAINED], others=[VIDEO, COMFYUI]),
        stage("report", PATHS.report, lora=[LORA], samples=[VIDEO]),
        stage("plan", PATHS.plan),
    ]


def running(*targets: str, **found: Found) -> list[str]:
    return Planner(PATHS, stages(**found), targets=targets).running


# -- what runs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "runs"),
    [
        ({}, []),
        (dict.fromkeys((name.replace(".", "_") for name in ALL), MISSING), ALL[:-2]),
        # what is wrong runs, and all that tells of something else by it is wrong itself
        ({"train": WRONG, "publish": WRONG}, ["train", "publish"]),
        ({"sample_video_a": WRONG}, ["sample_video.a", "publish"]),
        ({"encode_latents_0": WRONG}, ["encode_latents.0"]),  # items were lost: training does not need them now
        # what is missing runs only if something that runs reads it
        ({"encode_latents_0": MISSING}, []),
        ({"sample_latents_a": MISSING}, []),
        ({"sample_latents_a": MISSING, "sample_video_a": WRONG}, ["sample_latents.a", "sample_video.a", "publish"]),
        ({"sample_latents_a": MISSING, "convert_comfyui": WRONG}, ["convert.comfyui", "publish"]),
        ({"encode_latents_0": MISSING, "train": WRONG, "publish": MISSING}, ["encode_latents.0", "train", "publish"]),
        # the LoRA is published when all that belongs to it is right
        ({"sample_video_a": MISSING}, ["sample_video.a", "publish"]),
        ({"publish": MISSING}, ["publish"]),
        # what nobody asked for stays as it is
        ({"plan": MISSING}, []),
        ({"plan": WRONG}, []),
    ],
    ids=str,
)
def test_what_has_to_run(found: Mapping[str, Found], runs: list[str]) -> None:
    assert running(**found) == runs


@pytest.mark.parametrize(
    ("targets", "runs"),
    [
        ((), ["train", "sample_video.a", "publish"]),
        (("results/lora.safetensors",), ["train", "sample_video.a", "publish"]),
        (("all",), ["train", "sample_video.a", "publish", "report"]),
        (("results/report.html",), ["train", "sample_video.a", "publish", "report"]),
        (("results/train.safetensors",), ["train"]),
        (("train",), ["train"]),
        (("results/samples/a.mp4",), ["train", "sample_video.a"]),
        (("results/samples/a.latents.safetensors",), ["train"]),
        (("results/plan.txt",), ["plan"]),
        (("results/plan.txt", "results/train.safetensors"), ["train", "plan"]),
        (("all", "results/plan.txt"), ["train", "sample_video.a", "publish", "report", "plan"]),
    ],
)
def test_only_what_is_asked_for_runs(targets: tuple[str, ...], runs: list[str]) -> None:
    found = {"train": WRONG, "sample_video_a": WRONG, "publish": WRONG, "plan": MISSING}
    assert running(*targets, **found) == runs
    Planner(PATHS, stages(), targets=targets).refuse_unknown_targets()


def test_samples_stand_for_what_people_look_at() -> None:
    found = dict.fromkeys(("train", "sample_latents_a", "sample_video_a", "convert_comfyui", "publish"), WRONG)
    assert running("samples", **found) == ["train", "sample_latents.a", "sample_video.a"]
    assert running("samples", sample_latents_a=MISSING) == []


def test_a_project_without_datasets_makes_its_samples() -> None:
    found = {"sample_latents_a": MISSING, "sample_video_a": MISSING}
    only = [stage for stage in stages(**found) if stage.rule.startswith("sample")]
    for targets in ((), ("all",), ("samples",)):
        planner = Planner(PATHS, only, targets=targets)
        assert planner.running == ["sample_latents.a", "sample_video.a"]
        planner.refuse_unknown_targets()
    with pytest.raises(UserError, match="datasets: is missing"):
        Planner(PATHS, only).inputs("publish")


def test_unknown_targets_are_named() -> None:
    planner = Planner(PATHS, stages(), targets=["train", "results/nope.mp4", "results/lora.safetensors", "nothing"])
    with pytest.raises(UserError, match=r"^results/nope\.mp4, nothing: .*\n.*results/lora\.safetensors"):
        planner.refuse_unknown_targets()


@pytest.mark.parametrize("lost", [MISSING, WRONG])
def test_a_lost_training_comes_back_from_its_published_copy(lost: Found, tmp_path: Path) -> None:
    """Whatever else has to run: the published LoRA tells that it is the wanted one."""
    paths = ProjectPaths(tmp_path)
    paths.results.mkdir()
    paths.lora.write_bytes(b"the LoRA")
    if lost is WRONG:
        paths.trained.write_bytes(b"another one")
    planner = Planner(paths, stages(train=lost, sample_latents_a=WRONG, sample_video_a=WRONG))
    assert planner.running == ["sample_latents.a", "sample_video.a", "publish"]
    planner.prepare()
    assert paths.trained.read_bytes() == b"the LoRA"


def test_what_belongs_to_a_lost_training_comes_back_with_it(tmp_path: Path) -> None:
    paths = ProjectPaths(tmp_path)
    paths.results.mkdir()
    found = stages(train=MISSING)
    pairs = {"train": (TRAINED, average_of(TRAINED)), "publish": (LORA, average_of(LORA))}
    for copy in pairs["publish"]:
        (tmp_path / copy).write_bytes(copy.name.encode())
    planner = Planner(paths, [replace(each, products=pairs.get(each.name, each.products)) for each in found])
    assert planner.running == []
    planner.prepare()
    assert [(tmp_path / lost).read_bytes().decode() for lost in pairs["train"]] == [
        copy.name for copy in pairs["publish"]
    ]


def test_a_lost_training_is_repeated_when_no_copy_tells_the_same() -> None:
    found = {"train": MISSING, "publish": WRONG, "sample_video_a": WRONG}
    assert running("results/samples/a.mp4", **found) == ["sample_video.a"], "only the latents are read"
    assert running("results/samples/a.mp4", **found, sample_latents_a=WRONG)[0] == "train"


# -- what Snakemake sees -----------------------------------------------------------------------------------------


def test_the_inputs_of_what_does_not_run_are_ancient() -> None:
    named, plain = Planner(PATHS, stages(sample_video_a=WRONG)).inputs("train")
    assert not plain
    assert named == {
        "spec": ["results/specs/train.json"],
        "manifests": [str(MANIFEST)],
        "models": ["given.safetensors"],
    }


def test_what_runs_names_everything_above_it_that_runs() -> None:
    """Snakemake passes over a job's own reasons when anything above it runs and all between is ancient."""
    planner = Planner(PATHS, stages(encode_latents_0=WRONG, sample_video_a=WRONG))
    named, plain = planner.inputs("sample_video.a")
    assert plain
    assert named == {
        "spec": ["results/specs/sample_video.a.json"],
        "latents": [str(LATENTS)],
        "after": [str(MANIFEST)],
    }
    named, plain = planner.inputs("publish")
    assert plain
    assert named["after"] == [str(MANIFEST)], "the video is an input already"


def test_above_is_what_a_stage_reads() -> None:
    assert list(Planner(PATHS, stages()).above("publish")) == ["train", "sample_video.a", "convert.comfyui"]


def test_what_the_config_does_not_ask_for_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"convert\.official: the config asks for nothing with that name"):
        Planner(PATHS, stages()).inputs("convert.official")


# -- specs and times ------------------------------------------------------------------------------------------------


@pytest.fixture
def paths(tmp_path: Path) -> ProjectPaths:
    """A project in which every product is there, made long ago."""
    for stage in stages():
        for product in stage.products:
            path = tmp_path / product
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(stage.name)
            os.utime(path, (1e9, 1e9))
    return ProjectPaths(tmp_path)


def plan(paths: ProjectPaths, *targets: str, dry_run: bool = False, **found: Found) -> Planner:
    planner = Planner(paths, stages(**found), targets=targets, dry_run=dry_run)
    planner.prepare()
    return planner


def state_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_every_stage_has_a_spec(paths: ProjectPaths) -> None:
    plan(paths, train=WRONG, publish=WRONG)
    assert {path.stem for path in paths.specs.iterdir()} == set(ALL)
    for name in ALL:
        spec = Spec.load(paths.spec(name))
        assert (spec.wanted, spec.runs) == ({"of": name}, name in ("train", "publish"))


def test_a_plan_that_finds_the_same_writes_nothing(paths: ProjectPaths) -> None:
    plan(paths)
    before = state_of(paths.root)
    plan(paths)
    assert state_of(paths.root) == before


def test_the_spec_of_a_wrong_product_is_newer_and_never_the_same(paths: ProjectPaths) -> None:
    """A record of Snakemake's that says that this job was done with this input must not fit."""
    seen = set()
    for _ in range(3):
        os.utime(paths.trained)  # as if a job had just failed to replace it
        plan(paths, train=WRONG, publish=WRONG)
        spec = paths.spec("train")
        assert spec.stat().st_mtime_ns > paths.trained.stat().st_mtime_ns
        seen.add(spec.read_bytes())
    assert len(seen) == 3


def test_the_spec_of_what_is_not_there_stays_as_it_is(paths: ProjectPaths) -> None:
    paths.trained.unlink()
    plan(paths, train=MISSING, publish=MISSING)
    before = paths.spec("train").read_bytes(), paths.spec("train").stat().st_mtime_ns
    plan(paths, train=MISSING, publish=MISSING)
    assert (paths.spec("train").read_bytes(), paths.spec("train").stat().st_mtime_ns) == before


@pytest.mark.parametrize("content", ["", "{", '{"version": 0}'])
def test_a_torn_spec_is_written_again(paths: ProjectPaths, content: str) -> None:
    plan(paths)
    paths.spec("train").write_text(content)
    plan(paths)
    assert Spec.load(paths.spec("train")).wanted == {"of": "train"}


@pytest.mark.parametrize(
    "name",
    [
        "results/specs/train.json",
        "results/specs/a_former_stage.json",
        ".hv15/dry-run/train.json",
        "results/manifests/latents/0123456789abcdef/0-of-8.json",
        "results/manifests/text/0123456789abcdef/0-of-8.json",
    ],
)
def test_a_folder_in_the_place_of_a_file_is_refused(paths: ProjectPaths, name: str) -> None:
    plan(paths)
    plan(paths, dry_run=True)
    refuse_folders(paths)
    (paths.root / name).unlink(missing_ok=True)
    (paths.root / name).mkdir(parents=True)
    with pytest.raises(UserError, match=rf"{re.escape(name)}: a folder, expected a file .*") as caught:
        refuse_folders(paths)
    assert "move the folder elsewhere" in caught.value.hint


def test_no_file_has_a_time_in_the_future(paths: ProjectPaths) -> None:
    """The clock went back: Snakemake refuses a result that is older than what it was made from."""
    plan(paths)
    tomorrow = time.time() + 86_400
    folder = paths.root / VIDEO
    folder.unlink()
    folder.mkdir()  # a folder of images has Snakemake's time in a file
    (folder / ".snakemake_timestamp").touch()
    for path in [*paths.results.rglob("*")]:
        os.utime(path, (tomorrow, tomorrow))
    plan(paths)
    late = [path for path in paths.results.rglob("*") if path.stat().st_mtime > time.time() + 1]
    assert [path for path in late if path.is_file() or path == folder] == []


def test_a_wrong_folder_is_older_than_its_spec(paths: ProjectPaths) -> None:
    folder = paths.root / VIDEO
    folder.unlink()
    folder.mkdir()
    (folder / ".snakemake_timestamp").touch()
    plan(paths, sample_video_a=WRONG)
    written = paths.spec("sample_video.a").stat().st_mtime_ns
    assert max(path.stat().st_mtime_ns for path in (folder, folder / ".snakemake_timestamp")) < written


def test_a_link_gets_a_time_of_its_own(paths: ProjectPaths) -> None:
    elsewhere = paths.root / "elsewhere.safetensors"
    paths.trained.replace(elsewhere)
    paths.trained.symlink_to(elsewhere)
    plan(paths, train=WRONG, publish=WRONG)
    assert elsewhere.stat().st_mtime == 1e9
    assert paths.trained.lstat().st_mtime_ns < paths.spec("train").stat().st_mtime_ns


def test_specs_of_what_is_no_longer_asked_for_are_removed(paths: ProjectPaths) -> None:
    Spec({}).write(paths.spec("sample_video.gone"))
    (paths.specs / "notes.txt").write_text("somebody's own")
    plan(paths)
    assert not paths.spec("sample_video.gone").exists()
    assert (paths.specs / "notes.txt").exists()


def test_a_dry_run_writes_specs_elsewhere_and_leaves_all_others(paths: ProjectPaths) -> None:
    """It may be of a config that is not saved yet, beside a run that reads the specs."""
    plan(paths)
    Spec({}).write(paths.spec("sample_video.gone"))
    before = state_of(paths.results)
    planner = plan(paths, dry_run=True, train=WRONG, publish=WRONG)
    after = state_of(paths.results)
    assert {name: content for name, (content, _) in after.items()} == {name: each for name, (each, _) in before.items()}
    trial = paths.root / planner.spec_path("train")
    assert trial == paths.trial_spec("train")
    assert Spec.load(trial).runs
    assert trial.stat().st_mtime_ns > paths.trained.stat().st_mtime_ns
    assert planner.inputs("train")[0]["spec"] == [".hv15/dry-run/train.json"]
    assert not Spec.load(paths.spec("train")).runs


def test_a_folder_that_cannot_be_written_is_named(paths: ProjectPaths) -> None:
    (paths.results / "specs").write_text("in the way")
    with pytest.raises(UserError, match=r"specs.*cannot be written"):
        plan(paths)
