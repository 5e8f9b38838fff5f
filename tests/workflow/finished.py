"""Projects whose stages are made by stand-ins in this process, without Snakemake, and why they would run after an edit.

What is due is decided by the planner alone, as for `snakemake`, in a tenth of the time.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hv15.environment import CONFIG_VARIABLE, OVERRIDES_VARIABLE
from hv15.project import Project
from hv15.records.paths import ProjectPaths
from hv15.workflow import make_planner
from hv15.workflow.planner import Planner
from hv15.workflow.shards import Shard
from hv15.workflow.stage import Stage
from hv15.workflow.why import Reasons
from tests.workflow import stub_hv15
from tests.workflow.quick import Outcome, QuickProject
from tests.workflow.stub_hv15 import write_safetensors

ONE: dict[str, object] = {"name": "one", "prompt": "a red circle"}
TWO: dict[str, object] = {"name": "two", "prompt": "a blue square"}


def open_project(project: QuickProject) -> Project:
    return Project(project.root / "config.yaml")


class PlannedProject(QuickProject):
    """Its `make_due` plans and makes in this process; `snakemake` is still Snakemake."""

    def make_due(self, target: str = "results/lora.safetensors") -> Outcome:
        """Make all that is due, as on a machine with one GPU. With a job that fails, nothing after it is made."""
        (self.root / "ran.log").write_text("")
        try:
            finish(self, target, devices=1)
        except SystemExit as error:
            return self.outcome(1, str(error))
        return self.outcome(0, "")

    def due(self, target: str = "results/lora.safetensors") -> list[str]:
        """The stages that would run."""
        return make_planner(open_project(self), targets=(target,)).running


def finish(project: QuickProject, *targets: str, devices: int = 0) -> None:
    """Make what is asked for, by the stand-ins, as the workflow would.

    Args:
        devices: how many jobs with a model run at the same time; 0: no samples are made together.
    """
    opened = open_project(project)
    planner = make_planner(opened, targets=targets, dry_run=False, devices=devices)
    planner.prepare()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.root)
        patch.setenv(CONFIG_VARIABLE, "config.yaml")
        patch.setenv(OVERRIDES_VARIABLE, "{}")
        for shard, name in steps(planner):
            if shard is not None:
                make_shard(planner, shard)
            elif not take(planner.stages[name]):
                make(planner, name)


def steps(planner: Planner) -> Iterator[tuple[Shard | None, str]]:
    """The jobs, each after those that it reads from: of shards, and of single stages."""
    begun = set[str]()
    for name in planner.running:
        shard = planner.shard_of.get(name)
        if shard is not None and shard.stage.name not in begun:
            begun.add(shard.stage.name)
            yield shard, shard.stage.name
        yield None, name


def make_shard(planner: Planner, shard: Shard) -> None:
    """Make samples together, as the job of a shard; its list of them is temporary."""
    [out] = shard.stage.products
    out.parent.mkdir(parents=True, exist_ok=True)
    stub_hv15.main(["stage", "shard", "--spec", str(planner.spec_path(shard.stage.name)), "--out", str(out)])
    out.unlink()


def take(stage: Stage) -> bool:
    """Take what the job of a shard has left for a stage; whether there was anything."""
    product = stage.products[0]
    if stage.rule.partition("_")[0] not in ("sample", "upsample", "checkpoint"):
        return False
    made = ProjectPaths(run=stage.run).before_taken(product)
    if not made.exists():
        return False
    product.parent.mkdir(parents=True, exist_ok=True)
    made.replace(product)
    return True


def make(planner: Planner, name: str) -> None:
    stage = planner.stages[name]
    out = str(stage.products[0])
    options = ["--spec", str(planner.spec_path(name)), "--out", out]
    options += ["--experiment", stage.run] if stage.run else []
    lora = [str(file) for file in stage.inputs.get("lora", ())]
    loras = [word for file in lora for word in ("--lora", file)]
    match stage.rule:
        case "publish":
            for file, product in zip(lora, stage.products, strict=True):
                shutil.copy(file, product)
        case "check_models":
            stub_hv15.main(["check"])
            shutil.copy(planner.spec_path(name), out)
        case "sample_condition":
            write_safetensors(Path(out), {"hv15.made_from": json.dumps(stage.wanted)})
        case "demo_models":
            stub_hv15.main(["demo", "models"])
        case "encode_latents" | "encode_texts" | "encode_masks":
            stub_hv15.main(["encode", stage.rule.removeprefix("encode_"), "--shard", stage.subject, *options])
        case "train":
            stub_hv15.main(["train", *options])
        case "keep_checkpoint":
            stub_hv15.main(["stage", "lora", *options])
        case "sample_latents" | "checkpoint_latents":
            stub_hv15.main(["stage", "denoise", *options, *loras])
        case "upsample_latents":
            stub_hv15.main(["stage", "upsample", *options, *loras, "--low", str(stage.inputs["low"][0])])
        case "sample_video" | "upsample_video":
            stub_hv15.main(["stage", "decode", *options, "--latents", latents_of(stage)])
        case "report" | "card":
            stub_hv15.main(["stage", stage.rule, *options])
        case "checkpoint_video":
            stub_hv15.main(["stage", "decode", *options, "--latents", str(stage.inputs["latents"][0])])
        case "checkpoint_grid" | "sample_grid":
            stub_hv15.main(["stage", "grid", *options, "--video", str(stage.products[1])])
        case "comparison":
            stub_hv15.main(["stage", "comparison", *options])
        case "contact_sheet":
            stub_hv15.main(["stage", "sheet", *options])
        case "convert":
            stub_hv15.main(["export", "--lora", lora[0], "--out", out, "--to", stage.subject])


def latents_of(stage: Stage) -> str:
    """The latents of a sample; none where its video is copied."""
    return str(stage.inputs["latents"][0]) if "latents" in stage.inputs else ""


def why(project: QuickProject, *targets: str) -> dict[str, list[str]]:
    """Stage -> its reasons, of all that would run. A rule's shards are told together: there are two of each."""
    opened = open_project(project)
    due = Reasons(opened, make_planner(opened, targets=targets)).due()
    found: dict[str, list[str]] = {}
    for stage in due.stages:
        name = stage.rule if stage.rule.startswith("encode") else stage.name
        found.setdefault(name, []).extend(stage.reasons)
    return {name: sorted(reasons) for name, reasons in found.items()}
