"""A rerun does only what changed, with the real jobs: a few edits of test_staleness.py, and what a real store and real
products add to them. Each test has a copy of a project on which everything was made once."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.workflow.conftest import CLIPS, Made, clip_names
from tests.workflow.project import Outcome, ProjectFolder

SAMPLE = {"sample_latents": 1, "sample_video": 1}
TRAIN = {"train": 1}
TEXTS = CLIPS + 2  # the captions, the prompt, and the empty text


def expect(outcome: Outcome, jobs: dict[str, int], *, clips: int = 0, texts: int = 0) -> None:
    """Check a call: the heavy jobs (those that encode are counted by their items) and what was encoded."""
    assert outcome.code == 0, outcome.output
    other = {rule: count for rule, count in outcome.heavy.items() if not rule.startswith("encode_")}
    assert (other, outcome.clips, outcome.texts) == (jobs, clips, texts), outcome.output


def test_the_first_run_does_everything(made: Made) -> None:
    expect(made.outcome, TRAIN | SAMPLE, clips=CLIPS, texts=TEXTS)
    assert (made.outcome.jobs["encode_latents"], made.outcome.jobs["encode_texts"]) == (2, 2)
    assert (made.project.root / "results/lora.safetensors").stat().st_size > 1000


@pytest.mark.slow
def test_a_copy_without_hidden_files_is_up_to_date(project: ProjectFolder, tmp_path: Path) -> None:
    """And what is edited there is made again, and no more."""
    target = tmp_path / "copied"
    target.mkdir()
    visible = [path for path in sorted(project.root.iterdir()) if not path.name.startswith(".")]
    subprocess.run(["cp", "-r", *visible, target], check=True)
    copied = ProjectFolder(target)
    assert "Nothing to be done" in copied.snakemake("-n").output
    prompts = copied.config["sample"]["prompts"]
    copied.set(sample={"prompts": [{**prompts[0], "fps": 12}]})
    expect(copied.snakemake(), {"sample_video": 1})


@pytest.mark.slow
def test_the_page_and_the_card_tell_of_the_real_training(project: ProjectFolder) -> None:
    """And nothing else is made for them."""
    outcome = project.snakemake(target="all")
    assert outcome.code == 0, outcome.output
    assert {rule: count for rule, count in outcome.jobs.items() if rule != "all"} == {"report": 1, "card": 1}
    page = (project.root / "results/report.html").read_text()
    assert (
        f"A LoRA of rank 2 for text-to-video with HunyuanVideo 1.5 (480p_t2v), trained for 2 steps on {CLIPS}" in page
    )
    assert page.count("<svg ") == 5, "there is no validation"
    assert page.count("<video ") == 1
    assert f"| Clips | {CLIPS} clips of {CLIPS} files |" in (project.root / "results/README.md").read_text()
    assert "Nothing to be done" in project.snakemake("-n", target="all").output


@pytest.mark.slow
def test_a_new_caption_is_encoded_alone(project: ProjectFolder) -> None:
    name = clip_names(project.clips)[0]
    project.caption(name, "something else that moves")
    outcome = project.snakemake()
    expect(outcome, TRAIN | SAMPLE, texts=1)
    assert f"caption of clips/{name}.mp4 changed" in outcome.output


@pytest.mark.slow
def test_of_a_lost_store_only_that_is_encoded_again_which_is_read(project: ProjectFolder) -> None:
    """What is due then is tested in test_edits.py as well, and how a real store fills again in the next test."""
    shutil.rmtree(project.root / "cache" / "store")
    assert "Nothing to be done" in project.snakemake("-n").output
    (prompt,) = project.config["sample"]["prompts"]
    project.set(sample={"prompts": [{**prompt, "seed": 8}]})
    expect(project.snakemake(), SAMPLE, texts=TEXTS)
    project.set(train={"learning_rate": 4e-4}, sample={"prompts": []})
    expect(project.snakemake(), TRAIN, clips=CLIPS)


@pytest.mark.slow
def test_one_damaged_item_is_named_and_encoded_again(project: ProjectFolder) -> None:
    """What a store says of a damaged item is in tests/cache/test_store.py, and the repair in tests/hostile."""
    store = project.root / "cache" / "store" / "latents"
    for item in store.glob("*/??/*.safetensors"):
        item.write_bytes(item.read_bytes()[:-8])
    project.set(train={"learning_rate": 4e-4}, sample={"prompts": []})
    outcome = project.snakemake()
    assert outcome.code != 0
    assert "it is removed" in outcome.output
    assert "Traceback" not in outcome.output
    assert len(list(store.glob("*/??/*.safetensors"))) < CLIPS
    assert f"{CLIPS} damaged or lost" in project.hv15("repair", str(project.root))
    expect(project.snakemake(), TRAIN, clips=CLIPS)


def test_a_missing_caption_is_one_clear_error(project: ProjectFolder) -> None:
    name = clip_names(project.clips)[0]
    (project.clips / f"{name}.txt").unlink()
    before = (project.root / "results/lora.safetensors").read_bytes()
    outcome = project.snakemake()
    assert outcome.code != 0
    assert f"{name}.mp4: no caption" in outcome.output
    assert "Traceback" not in outcome.output
    assert (project.root / "results/lora.safetensors").read_bytes() == before
