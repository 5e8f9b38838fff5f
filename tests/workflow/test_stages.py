"""The stages of a project: what each makes and reads, and how its product is found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from hv15.demo.layout import copy_base
from hv15.errors import UserError
from hv15.project import Project
from hv15.records.outputs import DECODED
from hv15.records.rules import Rule
from hv15.workflow import make_planner
from hv15.workflow.stage import Found, Stage
from tests.workflow.quick import QuickProject
from tests.workflow.stub_hv15 import write_safetensors


@pytest.fixture
def project(tmp_path: Path) -> QuickProject:
    """Models and clips are there, and nothing was made."""
    project = QuickProject.make(tmp_path / "project")
    copy_base(project.root / "models")
    return project


def stages(project: QuickProject) -> dict[str, Stage]:
    return make_planner(Project(project.root / "config.yaml")).stages


def test_each_stage_follows_those_that_it_reads_from(project: QuickProject) -> None:
    project.set(convert={"formats": ["comfyui", "diffusers"]})
    made: set[Path] = set()
    everything = {product for stage in stages(project).values() for product in stage.products}
    for stage in stages(project).values():
        read = {file for files in stage.inputs.values() for file in files}
        assert read & everything <= made, stage.name
        assert not made & set(stage.products), "two stages make one file"
        made |= set(stage.products)


def test_a_new_project(project: QuickProject) -> None:
    found = stages(project)
    assert found.pop("demo_models").found is Found.RIGHT
    assert {stage.found for stage in found.values()} == {Found.MISSING}
    assert list(found) == [
        *("encode_latents.0", "encode_latents.1", "encode_texts.0", "encode_texts.1", "train"),
        *("sample_latents.one", "sample_video.one", "publish", "report", "card", "plan"),
    ]


def test_samples_that_are_compared_have_a_sheet_of_their_own(project: QuickProject) -> None:
    project.add_lora("style.safetensors")
    project.set(sample={"strengths": [0.5, 1], "compare": [{"path": "style.safetensors"}]})
    found = stages(project)
    names = ["one.x0.5", "one.x1", "one.with-style.x0.5", "one.with-style.x1"]
    assert [name for name in found if name.startswith("sample_video.")] == [f"sample_video.{name}" for name in names]
    assert "contact_sheet" not in found
    grid = found["sample_grid"]
    assert [str(file) for file in grid.inputs["samples"]] == [f"results/samples/{name}.mp4" for name in names]
    lora = {name: found[f"sample_latents.{name}"].inputs["lora"] for name in names}
    assert [bool(files) for files in lora.values()] == [True, True, False, False]
    project.set(sample={"strengths": [0.5, 1], "compare": [{"path": "style.safetensors", "multiplier": 2}]})
    changed = stages(project)["sample_grid"].wanted["samples"]
    assert isinstance(changed, dict)
    (before,), (after,) = ([*each.values()] for each in (grid.wanted["samples"], changed))  # type: ignore[union-attr]
    assert [label for label in before if before[label] != after[label]] == ["style x 0.5", "style x 1"]


def checkpoint_stages(project: QuickProject, *targets: str) -> dict[str, Stage]:
    return make_planner(Project(project.root / "config.yaml"), targets=targets or ("checkpoint_grid",)).stages


def keep(project: QuickProject, *steps: int) -> None:
    """Copies that the training has kept."""
    opened = Project(project.root / "config.yaml")
    for step in steps:
        made_from = {"hv15.made_from": json.dumps(opened.training_spec), "hv15.steps": str(step)}
        write_safetensors(opened.paths.checkpoints / f"lora-step{step:06d}.safetensors", made_from)


def test_samples_of_checkpoints_are_planned_only_when_asked_for(project: QuickProject) -> None:
    keep(project, 1)
    assert not [name for name in stages(project) if "checkpoint" in name]
    assert {"keep_checkpoint.1", "checkpoint_video.1.one"} < checkpoint_stages(project).keys()
    assert "checkpoint_video.1.one" in checkpoint_stages(project, "results/checkpoints/1/one.mp4")


def test_a_checkpoints_sample_differs_from_the_final_one_in_the_lora_alone(project: QuickProject) -> None:
    """Same prompt, noise, schedule and guidance."""
    keep(project, 1)
    found = checkpoint_stages(project)
    final, of_step = found["sample_latents.one"], found["checkpoint_latents.1.one"]
    assert {name for name in final.wanted if final.wanted[name] != of_step.wanted[name]} == {"trained"}
    assert of_step.inputs["lora"] == [Path("results/checkpoints/1/lora.safetensors")]
    assert "trained" not in found["keep_checkpoint.1"].inputs  # the training need not go on


def test_the_last_steps_sample_is_the_final_one(project: QuickProject) -> None:
    found = checkpoint_stages(project)
    assert found["checkpoint_latents.2.one"].wanted == found["sample_latents.one"].wanted
    assert found["checkpoint_latents.2.one"].inputs["lora"] == [Path("results/train.safetensors")]
    same = "results/samples/one.latents.safetensors"
    assert found["checkpoint_latents.2.one"].details["same"] == same
    assert found["sample_latents.one"].details["same"] == "results/checkpoints/2/one.latents.safetensors"


def test_the_grid_has_a_column_for_each_kept_step(project: QuickProject) -> None:
    keep(project, 1)
    project.set(sample={"with_base": True})
    files = checkpoint_stages(project)["checkpoint_grid"].inputs["samples"]
    assert [str(file) for file in files] == ["results/samples/one.base.mp4", "results/checkpoints/1/one.mp4"]
    shutil.rmtree(project.root / "results")
    files = checkpoint_stages(project)["checkpoint_grid"].inputs["samples"]  # what the training is going to keep
    assert [file.parent.name for file in files] == ["samples", "1", "2"]


def test_a_checkpoint_that_is_not_kept_is_refused(project: QuickProject) -> None:
    keep(project, 1)
    planner = make_planner(Project(project.root / "config.yaml"), targets=["results/checkpoints/7/one.mp4"])
    with pytest.raises(UserError, match="after step 7 is not kept; there are 1"):
        planner.inputs("checkpoint_video.7.one")
    project.set(sample={"prompts": []})
    planner = make_planner(Project(project.root / "config.yaml"), targets=["checkpoint_grid"])
    with pytest.raises(UserError, match="no prompt gives a video"):
        planner.inputs("checkpoint_grid")


def test_everything_follows_from_the_published_step(project: QuickProject) -> None:
    project.set(train={"publish_step": 1}, convert={"formats": ["comfyui"]})
    found, lora = stages(project), Path("results/checkpoints/1/lora.safetensors")
    assert found["keep_checkpoint.1"].inputs["trained"] == [Path("results/train.safetensors")]
    readers = {name: found[name].inputs["lora"] for name in ("publish", "convert.comfyui", "sample_latents.one")}
    assert set(map(tuple, readers.values())) == {(lora,)}
    assert found["publish"].wanted == found["keep_checkpoint.1"].wanted != found["train"].wanted


def test_previews_of_another_size_have_a_first_image_of_their_own(project: QuickProject) -> None:
    """Training waits for the first images of its previews."""
    Image.new("RGB", (64, 64)).save(project.root / "first.png")
    prompts = [{"name": name, "prompt": name, "image_path": "first.png"} for name in ("one", "two")]
    project.set(task="i2v", sample={"prompts": prompts})
    assert reads_of_training(project) == ["one", "two"]
    project.set(train={"previews": ["two"], "preview": {"video_size": [32, 48]}})
    assert reads_of_training(project) == ["two.preview"]
    found = stages(project)
    assert {"sample_condition.one", "sample_condition.two", "sample_condition.two.preview"} < found.keys()
    assert found["sample_condition.two.preview"].wanted["size"] == [32, 48]


def reads_of_training(project: QuickProject) -> list[str]:
    names = [path.name.removesuffix(".condition.safetensors") for path in stages(project)["train"].inputs["conditions"]]
    assert list(stages(project)).index("train") > max(
        list(stages(project)).index(f"sample_condition.{name}") for name in names
    )
    return names


def test_a_moving_average_is_trained_and_published_with_the_lora(project: QuickProject) -> None:
    project.set(train={"ema_decay": 0.9})
    found = stages(project)
    assert [str(path) for path in found["train"].products] == [
        "results/train.safetensors",
        "results/train.ema.safetensors",
    ]
    assert [str(path) for path in found["publish"].products] == [
        "results/lora.safetensors",
        "results/lora.ema.safetensors",
    ]
    assert found["publish"].inputs["lora"] == list(found["train"].products)
    assert found["sample_latents.one"].inputs["lora"] == [found["train"].products[0]]
    made_from = {"hv15.made_from": json.dumps(found["train"].wanted)}
    write_safetensors(project.root / "results/train.safetensors", made_from)
    assert stages(project)["train"].found is Found.MISSING
    write_safetensors(project.root / "results/train.ema.safetensors", made_from)
    assert stages(project)["train"].found is Found.RIGHT


def test_a_product_is_right_when_it_records_what_is_wanted(project: QuickProject) -> None:
    wanted = stages(project)["train"].wanted
    for recorded, state in ((wanted, Found.RIGHT), ({**wanted, "format": 0}, Found.WRONG), (None, Found.MISSING)):
        metadata = {} if recorded is None else {"hv15.made_from": json.dumps(recorded)}
        write_safetensors(project.root / "results/train.safetensors", metadata)
        stage = stages(project)["train"]
        assert (stage.found, stage.recorded) == (state, recorded)


def test_a_torn_product_is_missing(project: QuickProject) -> None:
    (project.root / "results").mkdir()
    (project.root / "results/train.safetensors").write_bytes(b"\x99\x00\x00\x00\x00\x00\x00\x00{")
    assert stages(project)["train"].found is Found.MISSING


def test_a_name_is_rule_and_wildcard(project: QuickProject) -> None:
    stage = stages(project)["sample_video.one"]
    assert (stage.rule, stage.subject) == ("sample_video", "one")
    outputs = {output.rule for output in DECODED}
    assert {stage.rule for stage in stages(project).values()} <= {str(rule) for rule in Rule} | outputs
