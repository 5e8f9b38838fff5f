"""A project without datasets: it samples, and trains nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.workflow.project import ProjectFolder, tiny_models

SIZE = {"video_size": [64, 64], "video_length": 5, "infer_steps": 1, "guidance_scale": 1.0}
RUN = {"sample_shard": 1, "sample_latents": 2, "sample_video": 2}


def prompts(first: str) -> dict[str, Any]:
    return {"prompts": [{"name": "one", "prompt": first}, {"name": "two", "prompt": "a square"}]}


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
