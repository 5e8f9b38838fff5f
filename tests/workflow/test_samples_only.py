"""A project without datasets: it samples, and trains nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

from hv15.config.sample_columns import NO_LORA
from hv15.data.images import read_image
from hv15.lora.fit import trainable_layers
from hv15.models.dit_sizes import read_config
from hv15.models.weights.checkpoint import open_checkpoint
from hv15.sample.checkpoint_grid import draw_grid, film_scale, read_line
from hv15.sample.contact_sheet import read_sample
from tests.lora.samples import random_lora
from tests.workflow.finished import PlannedProject
from tests.workflow.project import ProjectFolder, tiny_models

SIZE = {"video_size": [64, 64], "video_length": 5, "infer_steps": 1, "guidance_scale": 1.0}
RUN = {"sample_shard": 1, "sample_latents": 2, "sample_video": 2}


def prompts(first: str) -> dict[str, Any]:
    return {"prompts": [{"name": "one", "prompt": first}, {"name": "two", "prompt": "a square"}]}


def test_a_further_strength_makes_its_own_columns_only(tmp_path: Path) -> None:
    project = PlannedProject.make(tmp_path / "project")
    for name in ("one", "two"):
        project.add_lora(f"{name}.safetensors")
    compare = [{"path": "one.safetensors"}, {"path": "two.safetensors", "multiplier": 3.0}]
    project.set(datasets=[], sample={"compare": compare, "strengths": [1]})
    made = project.make_due("samples")
    assert (made.jobs["stage shard"], made.jobs["stage grid"], project.due("samples")) == (1, 1, [])
    videos = [f"one{column}.mp4" for column in ("", ".with-one.x1", ".with-two.x1")]
    assert all((project.root / "results/samples" / video).is_file() for video in videos)
    project.set(sample={"strengths": [1, 0.5]})
    latents = [name for name in project.due("samples") if name.startswith("sample_latents")]
    assert latents == ["sample_latents.one.with-one.x0.5", "sample_latents.one.with-two.x0.5"]


@pytest.mark.slow
def test_strengths_and_loras_are_drawn_side_by_side(tmp_path: Path, demo_models: Path) -> None:
    """And a further strength makes its own column only."""
    models = tiny_models(demo_models)
    layers = trainable_layers(read_config(open_checkpoint(Path(models["dit"]))))
    for name in ("one", "two"):
        save_file(random_lora(layers, 2, alpha=2.0), tmp_path / f"{name}.safetensors")
    project = ProjectFolder(tmp_path)
    compare = [{"path": "one.safetensors"}, {"path": "two.safetensors", "multiplier": 3.0}]
    sample = {**SIZE, "prompts": [{"name": "cat", "prompt": "a cat"}], "compare": compare, "strengths": [1]}
    project.write({"models": models, "sample": sample})
    first = project.snakemake(target="samples")
    assert first.code == 0, first.output
    assert (first.heavy["sample_shard"], first.heavy["sample_latents"]) == (1, 3)
    folder = tmp_path / "results/samples"
    files = [folder / f"{name}.mp4" for name in ("cat", "cat.with-one.x1", "cat.with-two.x1")]
    line = read_line("a cat", files, 24.0, film_scale([(64, 64)], 3))
    assert np.array_equal(read_image(folder / "grid.png"), draw_grid([line], [NO_LORA, "one x 1", "two x 1"]))
    assert read_sample(folder / "grid.mp4").shape[0] == 5
    assert len({file.read_bytes() for file in files}) == 3
    project.set(sample={"strengths": [1, 0.5]})
    again = project.snakemake(target="samples")
    assert (again.heavy["sample_shard"], again.heavy["sample_latents"]) == (1, 2), again.output


@pytest.mark.slow
def test_it_samples_and_an_edited_prompt_alone_is_made_again(tmp_path: Path, demo_models: Path) -> None:
    project = ProjectFolder(tmp_path)
    project.write({"models": tiny_models(demo_models), "sample": {**SIZE, **prompts("a circle")}})
    first = project.snakemake(target="all")
    assert first.code == 0, first.output
    assert first.heavy == {"encode_texts": 1, **RUN}
    assert not (tmp_path / "results" / "train").exists()
    project.set(sample=prompts("a red circle"))
    again = project.snakemake(target="samples")
    assert again.heavy == {"encode_texts": 1, "sample_latents": 1, "sample_video": 1, "samples": 1}
    refused = project.snakemake(target="results/lora.safetensors")
    assert refused.code != 0
    assert "datasets: is missing: there is nothing to train on\n  hint: add a dataset" in refused.output.replace(
        "    ", ""
    )
