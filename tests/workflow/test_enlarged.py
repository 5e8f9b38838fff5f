"""Super resolution in the workflow: <name>.sr.mp4 from the latents of <name>, again only where something of it changed.

The jobs are stand-ins (tests/workflow/stub_hv15.py), most without Snakemake (tests/workflow/finished.py);
tests/commands/test_enlarging.py runs the real ones.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from hv15.demo.layout import BASE, DEMO_FILES
from hv15.errors import UserError
from hv15.project import Project
from hv15.records.json_values import as_object
from hv15.workflow import make_planner
from hv15.workflow.shards import make_shards
from hv15.workflow.stage import Stage
from tests.workflow.edits import ONE, SAMPLE, TRAIN, TWO, Edit, edit, lose, prompts, sets
from tests.workflow.finished import PlannedProject, why
from tests.workflow.quick import Outcome, QuickProject

ENLARGE = {"stage upsample": 1, "stage decode": 1}
AGAIN = {"stage denoise": 1, "stage upsample": 1, "stage decode": 2}


def write_upsampler(file: Path, seed: int = 0) -> None:
    """A file with the names of a latent upsampler for 720p; a plan reads no more of it."""
    file.parent.mkdir(exist_ok=True)
    save_file({"in_conv.conv.weight": torch.full((2, 2), float(seed))}, file)


def with_super_resolution(project: PlannedProject) -> PlannedProject:
    """Give it the demo's models by their paths, and stand-ins for those of super resolution."""
    files = {role: str(BASE / Path(name).name) for role, name in DEMO_FILES.items()}
    write_upsampler(project.root / "sr/upsampler.safetensors")
    save_file({"any": torch.zeros(2)}, project.root / "sr/dit.safetensors")
    enlarging = {"sr_dit": "sr/dit.safetensors", "upsampler": "sr/upsampler.safetensors"}
    project.set(models={"source": "files", **files, **enlarging}, sample={"sr": "auto"})
    return project


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PlannedProject:
    """A project on which everything was made once; each case has a copy."""
    project = with_super_resolution(PlannedProject.make(tmp_path_factory.mktemp("enlarged") / "project"))
    outcome = project.make_due()
    assert (outcome.jobs["stage denoise"], outcome.jobs["stage upsample"], outcome.jobs["stage decode"]) == (1, 1, 2)
    assert outcome.jobs["stage sheet"] == 1, "before and after"
    assert {file.name for file in (project.root / "results/samples").iterdir() if not file.name.startswith(".")} == {
        *("one.mp4", "one.latents.safetensors", "one.sr.mp4", "one.sr.latents.safetensors", "contact_sheet.png"),
    }
    return project


def another_upsampler(project: QuickProject) -> None:
    write_upsampler(project.root / "sr/upsampler.safetensors", seed=1)


def both(*actions: Callable[[QuickProject], None]) -> Callable[[QuickProject], None]:
    def action(project: QuickProject) -> None:
        for each in actions:
            each(project)

    return action


EDITS = [
    edit("nothing", lambda project: None),
    edit("off", sets(sample={"sr": "off"}), {"check": 1}),
    edit("the resolution by its name", sets(sample={"sr": "720p"})),
    edit("another number of steps", sets(sample={"sr_steps": 4}), ENLARGE),
    edit("another shift", sets(sample={"sr_flow_shift": 3.0}), ENLARGE),
    edit("with the LoRA", sets(sample={"sr_with_loras": True}), ENLARGE),
    edit("another upsampler", another_upsampler, {"check": 1}, ENLARGE),
    edit("tiles of the decoder", sets(sample={"vae_sample_size": 128}), {"stage decode": 2}),
    edit("a prompt edited", prompts({**ONE, "prompt": "a green square"}), AGAIN, texts=1),
    edit("the small video's steps", sets(sample={"infer_steps": 2}), AGAIN),
    edit("the learning rate", sets(train={"learning_rate": 0.3}), TRAIN, AGAIN),
    edit("a lost large video", lose("results/samples/one.sr.mp4"), {"stage decode": 1}),
    edit("lost large latents", lose("results/samples/one.sr.latents.safetensors")),
    edit("lost small latents", lose("results/samples/one.latents.safetensors")),
    edit(
        "lost small latents and another number of steps",
        both(lose("results/samples/one.latents.safetensors"), sets(sample={"sr_steps": 4})),
        {"stage denoise": 1},
        ENLARGE,
    ),
    edit("a prompt that stays small", prompts(ONE, {**TWO, "sr": "off"}), SAMPLE, texts=1),
    edit("one more without the LoRA, which stays small", sets(sample={"with_base": True}), SAMPLE),
    edit("only latents", sets(sample={"output_type": "latent"})),
]


def rerun_does(case: Edit, outcome: Outcome) -> None:
    other = {rule: count for rule, count in outcome.jobs.items() if not rule.startswith(("encode", "stage sheet"))}
    assert (outcome.code, other, outcome.texts) == (0, case.jobs, case.texts), outcome.output


@pytest.mark.parametrize("case", EDITS, ids=[case.name for case in EDITS])
def test_a_rerun_does_what_changed_and_no_more(case: Edit, prepared: PlannedProject, tmp_path: Path) -> None:
    project = prepared.copied(tmp_path / "project", everything=True)
    case.edit(project)
    rerun_does(case, project.make_due())
    assert project.due() == []


@pytest.mark.slow
@pytest.mark.parametrize("case", EDITS, ids=[case.name for case in EDITS])
def test_so_it_does_with_snakemake(case: Edit, prepared: PlannedProject, tmp_path: Path) -> None:
    project = prepared.copied(tmp_path / "project", everything=True)
    case.edit(project)
    rerun_does(case, project.snakemake())
    project.forget()
    assert "Nothing to be done" in project.snakemake("-n").output


def test_several_share_one_load(prepared: PlannedProject, tmp_path: Path) -> None:
    """A shard of their own, after that of the small ones; and both at once where all is due."""
    project = prepared.copied(tmp_path / "project", everything=True)
    project.set_prompts(ONE, TWO)
    project.make_due()
    project.set(sample={"sr_steps": 4})
    outcome = project.make_due()
    assert {rule: count for rule, count in outcome.jobs.items() if rule != "stage sheet"} == {"stage shard": 1}
    project.set(train={"learning_rate": 0.3})
    outcome = project.snakemake()
    assert outcome.jobs["stage shard"] == 2, outcome.output
    assert outcome.output.count("one and two are due") == 2
    assert project.due() == []


def test_a_large_video_is_a_target(prepared: PlannedProject, tmp_path: Path) -> None:
    project = prepared.copied(tmp_path / "project", everything=True)
    project.set_prompts({**ONE, "seed": 5}, TWO)
    outcome = project.make_due("results/samples/one.sr.mp4")
    assert (outcome.jobs["stage denoise"], outcome.jobs["stage upsample"], outcome.jobs["stage decode"]) == (1, 1, 1)


# -- what is planned --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sr_steps": 4}, {"upsample_latents.one": ["sr_steps 6 -> 4"]}),
        (
            {"seed": 5},
            {
                "sample_latents.one": ["seed 123 -> 5"],
                "sample_video.one": ["it is sampled again"],
                "upsample_latents.one": ["seed 123 -> 5", "it is sampled again"],
            },
        ),
        (
            {"sr_with_loras": True},
            {"upsample_latents.one": ["it was made with another LoRA", "lora_multiplier not set -> 1.0"]},
        ),
    ],
)
def test_the_reasons(
    change: dict[str, object], said: dict[str, list[str]], prepared: PlannedProject, tmp_path: Path
) -> None:
    project = prepared.copied(tmp_path / "project", everything=True)
    assert why(project) == {}
    project.set(sample=change)
    found = why(project)
    assert found.pop("upsample_video.one") == ["it is enlarged again"]
    assert "one.sr is new" in found["contact_sheet"]
    assert {name: sorted(words) for name, words in said.items()}.items() <= found.items()
    assert {name.partition(".")[0] for name in found.keys() - said.keys()} == {"contact_sheet", "publish"}


def test_why_after_another_upsampler(prepared: PlannedProject, tmp_path: Path) -> None:
    project = prepared.copied(tmp_path / "project", everything=True)
    another_upsampler(project)
    assert why(project)["upsample_latents.one"] == ["another latent upsampler (models.upsampler)"]


def stages(project: QuickProject) -> dict[str, Stage]:
    return make_planner(Project(project.root / "config.yaml")).stages


def test_an_image_is_encoded_again_at_the_large_size(prepared: PlannedProject, tmp_path: Path) -> None:
    project = prepared.copied(tmp_path / "project", everything=True)
    Image.new("RGB", (64, 64)).save(project.root / "first.png")
    project.set(task="i2v")
    project.set_prompts({**ONE, "image_path": "first.png"})
    found = stages(project)
    small, large = (found[f"sample_condition.{name}"].wanted for name in ("one", "one.sr"))
    assert (small["size"], large["size"], large["enlarged_to"]) == ([64, 64], [96, 96], "720p")
    latents = found["upsample_latents.one"]
    assert latents.inputs["condition"] == list(found["sample_condition.one.sr"].products)
    assert latents.inputs["low"] == list(found["sample_latents.one"].products)
    assert as_object(latents.wanted["models"]).keys() == {"sr_dit", "upsampler", "vae", "image_encoder"}
    shards = make_shards(found.values(), 1)
    assert [shard.stage.name for shard in shards] == ["condition_shard.0"], "one sample alone needs no other"


def test_models_are_downloaded_and_checked_only_if_something_is_enlarged(tmp_path: Path) -> None:
    project = QuickProject.make(tmp_path / "project")
    project.set(models={"source": "hub", "variant": "480p_t2v"}, sample={"sr": "auto"})
    enlarging = {"download_sr_dit", "download_upsampler", "upsample_latents.one", "upsample_video.one"}
    found = stages(project)
    assert enlarging <= found.keys()
    assert {"sr_dit", "upsampler"} <= as_object(found["check_models"].wanted["models"]).keys()
    made = {str(file) for file in found["upsample_latents.one"].inputs["models"]}
    assert made == {
        "models/transformer/720p_sr_distilled/diffusion_pytorch_model.safetensors",
        "models/upsampler/720p_sr_distilled/diffusion_pytorch_model.safetensors",
        "models/upsampler/720p_sr_distilled/config.json",
    }
    project.set_prompts({**ONE, "sr": "off"})
    found = stages(project)
    assert not enlarging & found.keys()
    assert not {"sr_dit", "upsampler"} & as_object(found["check_models"].wanted["models"]).keys()


@pytest.mark.parametrize("experiment", ["", pytest.param("large", marks=pytest.mark.slow)])
def test_the_demos_models_are_copied_before_they_are_used(experiment: str, tmp_path: Path) -> None:
    """By the rule that copies all of the demo's, also where an experiment alone makes samples larger."""
    project = QuickProject.make(tmp_path / "project")
    larger: dict[str, object] = {"sample.prompts": [{**ONE, "sr": "auto"}]}
    if experiment:
        project.set(experiments={experiment: larger})
    else:
        project.set(sample={"sr": "auto"})
    outcome = project.snakemake("-n", target=f"results/{experiment}/samples/one.sr.mp4".replace("//", "/"))
    assert outcome.code == 0, outcome.output
    assert "demo_models" in outcome.output


def test_a_model_for_another_resolution_is_refused_before_the_first_job(
    prepared: PlannedProject, tmp_path: Path
) -> None:
    project = prepared.copied(tmp_path / "project", everything=True)
    project.set(sample={"sr": "1080p"})
    with pytest.raises(UserError, match=r"upsampler\.safetensors: is the latent upsampler for 720p, but .* is 1080p"):
        project.due()
