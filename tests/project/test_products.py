"""The files that belong to a finished LoRA."""

from __future__ import annotations

from pathlib import Path

import pytest

from hv15.errors import UserError
from hv15.project import Project
from hv15.project.products import SheetFiles, products, sample_files, sheet_samples, shown_samples
from hv15.records.paths import ProjectPaths
from tests.project.conftest import MakeProject

PATHS = ProjectPaths()
FOLDER = Path("results/samples")


def prompts(*types: str) -> list[dict[str, object]]:
    return [{"name": f"{number}", "prompt": "a cat", "output_type": each} for number, each in enumerate(types)]


def made(project: Project) -> list[str]:
    return [str(file) for file in products(project.settings, project.samples, project.enlarged, PATHS)]


def sheet(project: Project) -> dict[str, SheetFiles]:
    return sheet_samples(project.samples, project.enlarged, PATHS)


@pytest.mark.parametrize(
    ("output_type", "names"),
    [
        ("video", ["0.mp4"]),
        ("images", ["0.frames"]),
        ("latent", ["0.latents.safetensors"]),
        ("both", ["0.mp4", "0.latents.safetensors"]),
        ("latent_images", ["0.frames", "0.latents.safetensors"]),
    ],
)
def test_what_each_output_type_asks_for(output_type: str, names: list[str], open_project: MakeProject) -> None:
    project = open_project(sample={"prompts": prompts(output_type)})
    assert sample_files(project.sample("0"), PATHS) == [FOLDER / name for name in names]
    shown = {"0": FOLDER / names[0]} if output_type != "latent" else {}
    assert shown_samples(project.samples, PATHS) == shown


def test_the_sheet_compares_what_can_be_looked_at(open_project: MakeProject) -> None:
    project = open_project(sample={"prompts": prompts("video", "latent", "images")})
    assert sheet(project) == {"0": SheetFiles(FOLDER / "0.mp4"), "2": SheetFiles(FOLDER / "2.frames")}
    assert "results/samples/contact_sheet.png" in made(project)


@pytest.mark.parametrize("types", [(), ("video",), ("video", "latent")])
def test_there_is_no_sheet_without_two(types: tuple[str, ...], open_project: MakeProject) -> None:
    project = open_project(sample={"prompts": prompts(*types)})
    assert sheet(project) == {}
    assert "results/samples/contact_sheet.png" not in made(project)


def test_each_sample_stands_beside_the_one_without_the_lora(open_project: MakeProject) -> None:
    project = open_project(sample={"prompts": prompts("video"), "with_base": True})
    assert sheet(project) == {"0": SheetFiles(FOLDER / "0.mp4", FOLDER / "0.base.mp4")}


def test_each_sample_stands_beside_its_larger_version(open_project: MakeProject, root: Path) -> None:
    """Not the one without the LoRA, which stays small. One sample is enough to compare."""
    models = {"source": "hub", "variant": "480p_t2v"}
    sample = {"prompts": prompts("both"), "sr": "auto", "with_base": True}
    project = open_project(models=models, sample=sample, convert={"formats": []})
    assert sheet(project) == {"0": SheetFiles(FOLDER / "0.mp4", FOLDER / "0.base.mp4", FOLDER / "0.sr.mp4")}
    names = ("0.mp4", "0.latents.safetensors", "0.base.mp4", "0.base.latents.safetensors")
    large = ("0.sr.mp4", "0.sr.latents.safetensors", "contact_sheet.png")
    assert made(project) == [str(FOLDER / name) for name in (*names, *large)]
    alone = open_project(models=models, sample={"prompts": prompts("video"), "sr": "auto"})
    assert sheet(alone) == {"0": SheetFiles(FOLDER / "0.mp4", None, FOLDER / "0.sr.mp4")}


def test_everything_that_belongs_to_a_lora(open_project: MakeProject) -> None:
    project = open_project(sample={"prompts": prompts("both", "images")}, convert={"formats": ["comfyui", "official"]})
    assert made(project) == [
        "results/samples/0.mp4",
        "results/samples/0.latents.safetensors",
        "results/samples/1.frames",
        "results/samples/contact_sheet.png",
        "results/lora.comfyui.safetensors",
        "results/lora.official.safetensors",
    ]


def test_a_project_without_samples_and_conversions(open_project: MakeProject) -> None:
    assert made(open_project(sample={"prompts": []}, convert={"formats": []})) == []


def test_a_sample_is_asked_for_by_name(open_project: MakeProject) -> None:
    project = open_project(sample={"prompts": prompts("video", "video")})
    assert project.sample("1").name == "1"
    with pytest.raises(UserError, match=r"no sample is called 2; there are: 0, 1"):
        project.sample("2")
    with pytest.raises(UserError, match="there are: none"):
        open_project(sample={"prompts": []}).sample("0")
