"""A finished project, made by stand-ins without Snakemake, and why its stages would run after an edit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hv15.environment import CONFIG_VARIABLE, OVERRIDES_VARIABLE
from hv15.project import Project
from hv15.workflow import make_planner
from hv15.workflow.planner import Planner
from hv15.workflow.stage import Stage
from hv15.workflow.why import Reasons
from tests.workflow import stub_hv15
from tests.workflow.quick import QuickProject
from tests.workflow.stub_hv15 import write_safetensors

ONE: dict[str, object] = {"name": "one", "prompt": "a red circle"}
TWO: dict[str, object] = {"name": "two", "prompt": "a blue square"}


def open_project(project: QuickProject) -> Project:
    return Project(project.root / "config.yaml")


def finish(project: QuickProject, *targets: str) -> None:
    """Make what is asked for, by the stand-ins, as the workflow would."""
    opened = open_project(project)
    planner = make_planner(opened, targets=targets, dry_run=False)
    planner.prepare()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.root)
        patch.setenv(CONFIG_VARIABLE, "config.yaml")
        patch.setenv(OVERRIDES_VARIABLE, "{}")
        for name in planner.running:
            make(planner, name)


def make(planner: Planner, name: str) -> None:
    stage = planner.stages[name]
    out = str(stage.products[0])
    options = ["--spec", str(planner.spec_path(name)), "--out", out]
    options += ["--experiment", stage.run] if stage.run else []
    lora = [str(file) for file in stage.inputs.get("lora", ())]
    match stage.rule:
        case "publish":
            shutil.copy(lora[0], out)
        case "check_models":
            shutil.copy(planner.spec_path(name), out)
        case "sample_condition":
            write_safetensors(Path(out), {"hv15.made_from": json.dumps(stage.wanted)})
        case "demo_models":
            stub_hv15.main(["demo", "models"])
        case "encode_latents" | "encode_texts":
            stub_hv15.main(["encode", stage.rule.removeprefix("encode_"), "--shard", stage.subject, *options])
        case "train":
            stub_hv15.main(["train", *options])
        case "keep_checkpoint":
            stub_hv15.main(["stage", "lora", *options])
        case "sample_latents":
            stub_hv15.main(["stage", "denoise", *options, *(word for file in lora for word in ("--lora", file))])
        case "upsample_latents":
            stub_hv15.main(["stage", "upsample", *options, "--low", str(stage.inputs["low"][0])])
        case "sample_video" | "upsample_video":
            stub_hv15.main(["stage", "decode", *options, "--latents", latents_of(stage)])
        case "report" | "card":
            stub_hv15.main(["stage", stage.rule, *options])
        case "checkpoint_latents":
            stub_hv15.main(["stage", "denoise", *options, *(word for file in lora for word in ("--lora", file))])
        case "checkpoint_video":
            stub_hv15.main(["stage", "decode", *options, "--latents", str(stage.inputs["latents"][0])])
        case "checkpoint_grid":
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
