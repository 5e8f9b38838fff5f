"""`hv15 plan` as a user runs it: odd orders, models that are not there yet, and out of memory on the way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from hv15.config import new_project, preset_text
from hv15.out_of_memory import StageName
from hv15.plan.advice import advise
from hv15.plan.cost import Cost
from hv15.plan.devices import device_of_size
from hv15.plan.known_devices import store_rates
from hv15.plan.stage_costs import StageCosts
from hv15.plan.stage_plan import StagePlan
from hv15.plan.stages import StagePlanner
from hv15.project import Project
from hv15.records.device_rates import DeviceRates
from hv15.records.estimate import read_estimate
from tests.commands.workbench import Workbench, hv15
from tests.workflow.project import REPOSITORY


@pytest.mark.slow
def test_a_gpu_that_is_too_small_for_a_small_model(project: Workbench) -> None:
    """The advice tries no more blocks than the transformer has, and says so where nothing helps."""
    planner = StagePlanner(Project(project.root / "config.yaml"), device_of_size("0.1GiB"))
    assert "nothing in the settings makes it fit" in str(advise(planner, "denoise"))
    least = planner.stage("denoise").needed - 1
    found = advise(planner, "denoise", least)
    assert found is not None
    assert found.planned is not None
    assert found.planned.needed <= least
    assert found.changes.get("sample.blocks_to_swap", 1) <= planner.sizes.dit.num_blocks - 2 == 2


@pytest.mark.slow
def test_models_that_are_not_there(project: Workbench) -> None:
    files = {role: f"gone/{role}" for role in ("dit", "vae", "text_encoder", "tokenizer", "glyph_encoder")}
    project.set(models={"source": "files", **files}, sample={"prompts": []})
    said = project.does("plan", "--device", "4090", "--memory", "20GiB")
    assert said.out.startswith("RTX 4090: 20.0 GiB")
    assert "missing or unreadable, so planned with the published sizes: vae, text_encoder, dit" in said.out
    assert "weights 15.51" in said.out


@pytest.mark.slow
def test_the_demo_before_its_models_are_made(project: Workbench) -> None:
    """It is planned as what it will be, not as the published model."""
    config = project.config | {"models": {"source": "demo", "directory": "made-later"}}
    (project.root / "config.yaml").write_text(yaml.safe_dump(config))
    project.set(sample={"prompts": []})
    made = json.loads(project.does("plan", "--device", "4090", "--json").out)
    read = read_estimate(made)
    assert [stage.name for stage in read.stages] == [stage["name"] for stage in made["stages"]]
    assert (read.device.name, read.fits, read.note) == (made["device"]["name"], made["fits"], made["note"])
    assert "published sizes" not in made["note"]
    train = next(stage for stage in made["stages"] if stage["name"] == "train")
    assert train["parts"]["weights"] < 2**26


def test_a_measured_device(project: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rates are kept for later plans; those of another machine's report are given by hand."""
    cost, known = StageCosts.cost, dict[str, Cost]()

    def cost_once(self: StageCosts, name: StageName, *rest: Any) -> Cost:
        if name not in known:  # it is the same on each of these devices
            known[name] = cost(self, name, *rest)
        return known[name]

    monkeypatch.setattr(StageCosts, "cost", cost_once)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(StagePlanner, "names", ["train"])  # the others take as long
    rates = DeviceRates(
        device="NVIDIA GeForce RTX 4090",
        memory=24 * 2**30,
        torch="2.9",
        products={"bfloat16": 1.5e14},
        bandwidth=9e11,
        launch=5e-6,
        loading=1e9,
        start=5.0,
        context=2**29,
        fragments=0.03,
    )

    def bases(*options: str) -> set[str]:
        made = json.loads(project.does("plan", "--json", *options).out)
        times = {stage["total"]["basis"] for stage in made["stages"]}
        train = next(stage for stage in made["stages"] if stage["name"] == "train")
        return times | {f"memory {train['memory_basis']}"}

    assert bases("--device", "4090") == {"assumed", "memory assumed"}
    path = store_rates(rates)
    assert bases("--device", "4090") == {"measured here", "memory measured here"}
    report = tmp_path / "rates.json"
    path.rename(report)
    assert bases("--rates", str(report)) == {"measured here", "memory measured here"}
    refused = project.hv15("plan", "--rates", report, "--device", "4080")
    assert (refused.code, "measured on NVIDIA GeForce RTX 4090, but --device says RTX 4080" in refused.err) == (2, True)
    report.write_text('{"version": 99}')
    refused = project.hv15("plan", "--rates", report)
    assert (refused.code, f"{report}: no rates of a device: is of version 99" in refused.err) == (2, True)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["i2v-16gb", "t2v-24gb", "t2v-80gb"])
def test_each_preset_fits_the_card_it_is_named_after(tmp_path: Path, preset: str) -> None:
    planner = StagePlanner(Project(new_project(tmp_path, preset_text(preset))), device_of_size(preset[4:]))
    assert [stage.name for stage in map(planner.stage, planner.names) if not stage.fits] == []


def test_decoding_in_a_number_format_of_its_own(project: Workbench) -> None:
    planned = []
    for dtype in ("float16", "float32"):
        project.set(sample={"vae_dtype": dtype, "video_size": [272, 272], "dtype": "bfloat16"})
        planned.append(StagePlanner(project.project, device_of_size("16GiB")).stage("decode"))
    half, whole = planned
    assert whole.parts["weights"] == 2 * half.parts["weights"]
    assert whole.disk == 2 * half.disk > 0
    assert (half.settings["dtype"], half.settings["vae_dtype"]) == ("bfloat16", "float16")


@pytest.mark.parametrize("stage", [pytest.param("train", marks=pytest.mark.slow), "encode latents"])
def test_out_of_memory_is_one_message_with_what_helps(
    done: Workbench, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    from hv15.models import vae
    from hv15.train.optimizer_step import OptimizerStep

    def full(*_: object, **__: object) -> None:
        monkeypatch.undo()  # the plan runs the same code
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...\nmore")

    monkeypatch.setattr(OptimizerStep, "run", full)
    monkeypatch.setattr(vae.VAE, "encode", full)
    if stage == "encode latents":
        shutil.rmtree(done.root / "cache")
    done.set(train={"seed": 7})
    said = done.hv15(*stage.split())
    assert said.code == 2
    assert said.err.count("error:") == 1
    assert "Traceback" not in said.err
    for words in ("out of memory in ", "Tried to allocate 2.00 GiB", "the plan says", "GiB are needed"):
        assert words in said.err, said.err


def test_the_demo_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan looks into the clips, so it draws them first, as any command does that needs them."""
    monkeypatch.setattr(StagePlanner, "names", ["encode texts"])  # the others take long
    (tmp_path / "config.yaml").write_bytes((REPOSITORY / "config.yaml").read_bytes())
    said = hv15("plan", tmp_path, "--device", "4090")
    assert (said.code, "RTX 4090" in said.out) == (0, True), said.err
    assert list((tmp_path / "demo/clips").glob("*.mp4"))


def test_all_experiments_are_planned_once_for_what_they_share(
    project: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seeds and learning rates need nothing else; the total has what is encoded once, and each training once."""
    planned = list[str]()
    stage, known = StagePlanner.stage, dict[str, StagePlan]()

    def counted(self: StagePlanner, name: StageName, *rest: Any) -> StagePlan:
        planned.append(key := f"{self.project.run}/{name}")
        if key not in known:  # the later plans of this test take no time
            known[key] = stage(self, name, *rest)
        return known[key]

    monkeypatch.setattr(StagePlanner, "stage", counted)
    project.set(
        sample={"prompts": []},
        experiments={"long": {"train.max_train_steps": 6000}, "same": {}},
        sweep={"grid": {"train.learning_rate": [1e-4, 1e-3]}, "seeds": [1, 2]},
    )
    made = json.loads(project.does("plan", "--device", "4090", "--json").out)
    assert {each.partition("/")[0] for each in planned} == {"", "long"}
    alike = made["experiments"]["alike"]
    assert [each["names"][0] for each in alike] == ["long", "same"]
    assert len(alike[1]["names"]) == 5
    train = {each["name"]: each for each in made["stages"]}["train"]
    assert alike[1]["training"]["most"] == train["total"]["most"]
    assert alike[0]["needed"] == alike[1]["needed"] == train["needed"]
    assert made["experiments"]["trainings"] == 6, "each seed and rate is a training of its own"
    encoding = sum(each["total"]["most"] for each in made["stages"] if each["name"].startswith("encode"))
    trainings = sum(each["training"]["most"] * len(each["names"]) for each in alike)
    assert made["experiments"]["total"]["most"] == pytest.approx(encoding + trainings)

    said = project.does("plan", "--device", "4090").out
    assert "6 experiments, of which 6 different trainings:" in said
    assert "same, learning_rate-0.0001_seed-1 and 3 more" in said
    assert said.count("long") == 1
    for words in (("--experiment", "long"), ("--base",)):
        assert "experiments" not in json.loads(project.does("plan", "--device", "4090", "--json", *words).out)
    project.set(experiments={"long": {"train.max_train_steps": "many"}})
    wrong = project.hv15("plan")
    assert wrong.code == 2
    assert "experiments.long.train.max_train_steps: found 'many'" in wrong.err
