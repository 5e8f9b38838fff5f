"""`snakemake reproduce --config from=LORA` with the demo's tiny models."""

from __future__ import annotations

import json
import shutil

import pytest

from hv15.records.found_runs import reproductions
from hv15.records.paths import ProjectPaths
from tests.workflow.project import ProjectFolder
from tests.workflow.quick import QuickProject


def test_the_lora_is_named_or_asked_for(finished: QuickProject) -> None:
    said = finished.snakemake(target="reproduce")
    assert said.code == 1
    assert "which LoRA?" in said.output
    assert "snakemake reproduce --config from=FILE" in said.output
    said = finished.snakemake("--config", "from=results/lora.safetensors", "-n")
    assert "Nothing to be done" in said.output, "it is no setting, so it changes nothing"


@pytest.mark.slow
def test_a_lora_is_made_again_to_the_byte(project: ProjectFolder) -> None:
    root, lora = project.root, ProjectPaths(project.root).lora
    before = {path: path.read_bytes() for path in (root / "results").rglob("*.safetensors")}
    said = project.snakemake("--config", "from=results/lora.safetensors", target="reproduce")
    assert said.code == 0, said.output
    assert "results/lora.safetensors: identical: one training of 2 steps again gave every byte of it" in said.output
    assert all(path.read_bytes() == content for path, content in before.items())
    [work] = reproductions(root)
    assert (root / json.loads(work.reproduction_record.read_text())["made"]).read_bytes() == lora.read_bytes()
    assert "Nothing to be done" in project.snakemake("-n").output

    elsewhere = root.parent / "elsewhere.safetensors"
    shutil.copy(lora, elsewhere)
    name = next(iter(sorted(project.clips.glob("*.mp4")))).stem
    project.caption(name, "something else")
    said = project.snakemake("--config", f"from={elsewhere}", target="reproduce")
    assert said.code == 1
    assert f"caption of clips/{name}.mp4 changed" in said.output
