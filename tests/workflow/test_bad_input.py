"""Bad input through Snakemake: one clear error, nothing lost, and the mended input works without repeated encodes.

The many kinds of bad input are tried on the commands, in tests/commands; here is what only the workflow can show.
"""

from __future__ import annotations

import math
import shutil

import pytest
from safetensors.torch import load_file, save_file

from tests.commands.test_bad_clips import BAD, add_bad_clips
from tests.workflow.project import Outcome, ProjectFolder


@pytest.mark.slow
def test_bad_clips_stop_the_workflow_after_all_others_are_encoded(project: ProjectFolder) -> None:
    """And with `bad_clips: skip` it continues without encoding again."""
    project.set(cache={"shards": 1}, sample={"prompts": []})
    shutil.rmtree(project.root / "cache/store")
    before = results(project)
    add_bad_clips(project.clips)
    outcome = project.snakemake()
    is_a_refusal(
        outcome, "5 files cannot be used", "empty.mp4: empty file", "sound.mp4: expected a video", "hint: repair"
    )
    assert results(project) == before
    encoded = list((project.root / "cache/store/latents").glob("*/??/*.safetensors"))
    project.set(cache={"bad_clips": "skip"})
    outcome = project.snakemake()
    assert outcome.code == 0, outcome.output
    assert outcome.clips == 0
    assert "left out 5 files" in outcome.output
    assert list((project.root / "cache/store/latents").glob("*/??/*.safetensors")) == encoded
    report = project.hv15("report", str(project.root))
    assert all(f"/{name}." in report or f"/{name}:" in report for name in BAD), report


def test_a_wrong_setting_stops_before_any_job(project: ProjectFolder) -> None:
    before = results(project)
    project.set(train={"learning_rat": 1e-4})
    outcome = project.snakemake()
    is_a_refusal(outcome, "config.yaml:", "train.learning_rat: unknown key; did you mean 'learning_rate'?")
    assert not outcome.jobs
    assert results(project) == before


def test_so_does_a_wrong_path(project: ProjectFolder) -> None:
    before = results(project)
    project.set(sample={"loras": [{"path": "gone.safetensors"}], "prompts": [{"name": "one", "prompt": "a circle"}]})
    outcome = project.snakemake()
    is_a_refusal(outcome, "sample.prompts: one:", "gone.safetensors: no such file", "hint:")
    assert not outcome.jobs
    assert results(project) == before


def test_so_does_a_folder_in_the_place_of_a_spec_or_a_manifest(project: ProjectFolder) -> None:
    results = project.root / "results"
    for file in (results / "specs/train.json", next((results / "manifests/latents").glob("*/*.json"))):
        content = file.read_bytes()
        file.unlink()
        file.mkdir()
        outcome = project.snakemake()
        is_a_refusal(outcome, f"{file}: a folder, expected a file that hv15 writes itself", "hint: move the folder")
        assert not outcome.jobs
        file.rmdir()
        file.write_bytes(content)


def test_a_job_that_fails_leaves_the_published_lora(project: ProjectFolder) -> None:
    """What the plan cannot see, because it reads headers alone, fails when it is used."""
    before = results(project)["lora.safetensors"]
    weights = load_file(project.root / "results" / "train.safetensors")
    next(value for name, value in weights.items() if name.endswith("lora_up.weight")).fill_(math.nan)
    save_file(weights, project.root / "start.safetensors")
    project.set(sample={"prompts": []}, train={"network_weights": "start.safetensors"})
    outcome = project.snakemake()
    is_a_refusal(outcome, "start.safetensors: ", "NaN", "hint:")
    assert results(project)["lora.safetensors"] == before
    assert (outcome.clips, outcome.texts) == (0, 0)


def is_a_refusal(outcome: Outcome, *naming: str) -> None:
    """Snakemake fails, and what it shows is our message and no traceback."""
    assert outcome.code != 0
    assert "Traceback" not in outcome.output
    for words in naming:
        assert words in outcome.output, outcome.output


def results(project: ProjectFolder) -> dict[str, bytes]:
    """The finished files; logs are no results."""
    return {path.name: path.read_bytes() for path in (project.root / "results").glob("*.safetensors")}
