"""A rerun does only what changed: each test is one edit, and counts the jobs and encodes of the next call.

The tests build on one another, in their order, on one project.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.workflow.conftest import CLIPS, clip_names
from tests.workflow.project import REPOSITORY, Outcome, ProjectFolder, copy_clips

SAMPLE = {"sample_latents": 1, "sample_video": 1}
TRAIN = {"train": 1}
ONE = [{"name": "one", "prompt": "a red circle"}]
"""The prompt that the project begins with. Most edits are made while there is none: what follows training is known."""
TEXTS = CLIPS + 2  # the captions, the prompt, and the empty text


def expect(outcome: Outcome, jobs: dict[str, int], *, clips: int = 0, texts: int = 0) -> None:
    """Check a call: the heavy jobs (those that encode are counted by their items) and what was encoded."""
    assert outcome.code == 0, outcome.output
    other = {rule: count for rule, count in outcome.heavy.items() if not rule.startswith("encode_")}
    assert (other, outcome.clips, outcome.texts) == (jobs, clips, texts), outcome.output


def test_01_the_first_run_does_everything(project: ProjectFolder) -> None:
    outcome = project.snakemake()
    expect(outcome, TRAIN | SAMPLE, clips=CLIPS, texts=TEXTS)
    assert (outcome.jobs["encode_latents"], outcome.jobs["encode_texts"]) == (2, 2)
    assert (project.root / "results/lora.safetensors").stat().st_size > 1000


def test_02_a_second_run_does_nothing(project: ProjectFolder) -> None:
    outcome = project.snakemake()
    assert outcome.code == 0
    assert "Nothing to be done" in outcome.output


def test_03_a_new_caption_is_encoded_alone(project: ProjectFolder) -> None:
    name = clip_names(project.clips)[0]
    project.caption(name, "something else that moves")
    expect(project.snakemake(), TRAIN | SAMPLE, texts=1)


def test_03b_without_prompts_nothing_is_sampled(project: ProjectFolder) -> None:
    project.set(sample={"prompts": []})
    expect(project.snakemake(), {})


def test_04_touching_every_file_does_nothing(project: ProjectFolder) -> None:
    for path in project.clips.iterdir():
        os.utime(path)
    assert "Nothing to be done" in project.snakemake().output


def test_05_a_renamed_clip_does_nothing(project: ProjectFolder) -> None:
    name = clip_names(project.clips)[1]
    for path in list(project.clips.glob(f"{name}.*")):
        path.rename(path.with_stem("another name, with spaces"))
    assert "Nothing to be done" in project.snakemake().output


def test_06_swapped_captions_train_without_encoding(project: ProjectFolder) -> None:
    first, second = clip_names(project.clips)[2:4]
    one, two = project.caption(first), project.caption(second)
    project.caption(first, two)
    project.caption(second, one)
    expect(project.snakemake(), TRAIN)


def test_07_a_deleted_clip_trains_without_encoding(project: ProjectFolder) -> None:
    kept = project.remove(clip_names(project.clips)[4])
    (project.root / "kept").mkdir()
    for name, content in kept.items():
        (project.root / "kept" / name).write_bytes(content)
    outcome = project.snakemake()
    expect(outcome, TRAIN)
    assert outcome.jobs["encode_latents"] == outcome.jobs["encode_texts"] == 0


def test_08_a_deleted_clip_comes_back_without_encoding(project: ProjectFolder) -> None:
    for path in (project.root / "kept").iterdir():
        shutil.copy(path, project.clips / path.name)
    expect(project.snakemake(), TRAIN)


def test_09_a_new_clip_is_encoded_alone_in_its_shards(project: ProjectFolder, demo_clips: Path) -> None:
    copy_clips(demo_clips, project.clips, clip_names(demo_clips)[CLIPS : CLIPS + 1])
    outcome = project.snakemake()
    expect(outcome, TRAIN, clips=1, texts=1)
    assert (outcome.jobs["encode_latents"], outcome.jobs["encode_texts"]) == (1, 1)


def test_10_a_copy_of_a_clip_costs_no_encode(project: ProjectFolder) -> None:
    name = clip_names(project.clips)[0]
    for path in list(project.clips.glob(f"{name}.*")):
        shutil.copy(path, path.with_stem("copy"))
    expect(project.snakemake(), TRAIN)
    project.remove("copy")


def test_11_the_learning_rate_trains(project: ProjectFolder) -> None:
    project.set(train={"learning_rate": 2e-4})
    expect(project.snakemake(), TRAIN)


def test_12_settings_of_speed_and_memory_do_nothing(project: ProjectFolder) -> None:
    project.set(train={"gradient_checkpointing": False}, cache={"latent_batch": 2, "text_batch": 1, "workers": 1})
    assert "Nothing to be done" in project.snakemake().output
    before = (project.root / "config.yaml").read_text()
    kernels = {"attn_mode": "sdpa", "split_attn": True, "compile": True, "blocks_to_swap": 1}
    project.set(
        train={"gradient_checkpointing": True, "gradient_checkpointing_cpu_offload": True, **kernels},
        sample={"vae_enable_patch_conv": True, **kernels},
        cache={"vae_enable_patch_conv": True},
    )
    assert "Nothing to be done" in project.snakemake("-n").output
    (project.root / "config.yaml").write_text(before)


def test_12b_a_quantised_base_is_another_training(project: ProjectFolder) -> None:
    project.set(train={"quantize": "int8"})
    output = project.snakemake("-n").output
    assert "Training the LoRA" in output
    project.set(train={"quantize": "none"})
    assert "Nothing to be done" in project.snakemake("-n").output


def test_13_a_new_prompt_is_encoded_and_sampled_alone(project: ProjectFolder) -> None:
    project.set(sample={"prompts": ONE})
    expect(project.snakemake(), SAMPLE)  # its text was encoded at first
    project.set(sample={"prompts": [*ONE, {"name": "two", "prompt": "a blue square"}]})
    expect(project.snakemake(), SAMPLE, texts=1)


def test_14_an_edited_prompt_is_encoded_and_sampled_alone(project: ProjectFolder) -> None:
    prompts = project.config["sample"]["prompts"]
    prompts[1]["prompt"] = "a green square"
    project.set(sample={"prompts": prompts})
    expect(project.snakemake(), SAMPLE, texts=1)


def test_15_a_prompts_seed_samples_it_alone(project: ProjectFolder) -> None:
    prompts = project.config["sample"]["prompts"]
    prompts[1]["seed"] = 5
    project.set(sample={"prompts": prompts})
    expect(project.snakemake(), SAMPLE)


def test_15b_a_prompts_frame_rate_decodes_it_alone(project: ProjectFolder) -> None:
    prompts = project.config["sample"]["prompts"]
    prompts[1]["fps"] = 12
    project.set(sample={"prompts": prompts})
    expect(project.snakemake(), {"sample_video": 1})


def test_16_a_removed_prompt_does_nothing_heavy(project: ProjectFolder) -> None:
    project.set(sample={"prompts": ONE})
    expect(project.snakemake(), {})


def test_17_a_new_format_converts_only(project: ProjectFolder) -> None:
    project.set(convert={"formats": ["comfyui"]})
    expect(project.snakemake(), {"convert": 1})
    project.set(convert={"formats": []})
    expect(project.snakemake(), {})


def test_18_other_vae_settings_encode_all_clips(project: ProjectFolder) -> None:
    project.set(cache={"vae_sample_size": 128})
    expect(project.snakemake(), TRAIN | SAMPLE, clips=CLIPS + 1)


def test_19_the_former_vae_settings_encode_nothing(project: ProjectFolder) -> None:
    project.set(cache={"vae_sample_size": 0})
    expect(project.snakemake(), TRAIN | SAMPLE)


def test_20_more_shards_rewrite_manifests_only(project: ProjectFolder) -> None:
    project.set(cache={"shards": 3})
    outcome = project.snakemake()
    expect(outcome, {})
    assert (outcome.jobs["encode_latents"], outcome.jobs["encode_texts"]) == (3, 3)


def test_21_an_edited_encoding_rule_encodes_nothing(project: ProjectFolder, tmp_path: Path) -> None:
    for name in ("Snakefile", "rules", "profiles"):
        source = REPOSITORY / name
        shutil.copytree(source, tmp_path / name) if source.is_dir() else shutil.copy(source, tmp_path / name)
    rules = tmp_path / "rules" / "cache.smk"
    edited = rules.read_text().replace('"hv15 encode latents', '"true; hv15 encode latents')
    assert edited != rules.read_text()
    rules.write_text(edited)
    outcome = project.snakemake("-s", str(tmp_path / "Snakefile"))
    expect(outcome, {})
    assert outcome.jobs["encode_latents"] == 3
    expect(project.snakemake(), {})  # and back


def test_22_a_lost_store_is_encoded_again_without_training(project: ProjectFolder) -> None:
    shutil.rmtree(project.root / "cache" / "store")
    expect(project.snakemake(), {}, clips=CLIPS + 1, texts=TEXTS + 1)
    assert "Nothing to be done" in project.snakemake().output


def test_23_one_damaged_item_is_named_and_encoded_again(project: ProjectFolder) -> None:
    settings = yaml.safe_load((project.root / "results/train.json").read_text())["latents"]
    for item in (project.root / "cache" / "store" / "latents" / settings).glob("??/*.safetensors"):
        item.write_bytes(item.read_bytes()[:-8])
    project.set(train={"learning_rate": 4e-4})
    outcome = project.snakemake()
    assert outcome.code != 0
    assert "it is removed" in outcome.output
    assert "Traceback" not in outcome.output
    removed = CLIPS + 1 - len(list((project.root / "cache" / "store" / "latents" / settings).glob("??/*.safetensors")))
    assert removed >= 1
    repaired = subprocess.run(
        [sys.executable, "-m", "hv15.cli", "repair", "--config", str(project.root / "config.yaml")],
        cwd=project.root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{CLIPS + 1} damaged or lost" in repaired.stdout
    expect(project.snakemake(), TRAIN | SAMPLE, clips=CLIPS + 1)


def test_24_a_setting_on_the_command_line_counts_like_one_in_the_file(project: ProjectFolder) -> None:
    overrides = ["--config", 'train={"learning_rate": 5e-4}']
    outcome = project.snakemake(*overrides)
    expect(outcome, TRAIN | SAMPLE)
    spec = yaml.safe_load((project.root / "results/train.json").read_text())
    assert spec["train"]["learning_rate"] == 5e-4


def test_25_a_missing_caption_is_one_clear_error(project: ProjectFolder) -> None:
    name = clip_names(project.clips)[0]
    (project.clips / f"{name}.txt").unlink()
    before = (project.root / "results/lora.safetensors").read_bytes()
    outcome = project.snakemake()
    assert outcome.code != 0
    assert f"{name}.mp4: no caption" in outcome.output
    assert "Traceback" not in outcome.output
    assert (project.root / "results/lora.safetensors").read_bytes() == before


@pytest.mark.parametrize("target", ["results/lora.diffusers.safetensors"])
def test_26_a_dry_run_changes_no_file_of_the_cache(project: ProjectFolder, target: str) -> None:
    name = clip_names(project.clips)[0]
    project.caption(name, "back again")
    shutil.rmtree(project.root / "cache" / "store" / "text")
    cache = [path for path in (project.root / "cache").rglob("*") if path.is_file() and path.name != "index.json"]
    before = {path: path.read_bytes() for path in cache}
    outcome = project.snakemake("-n", target=target)
    assert outcome.code == 0, outcome.output
    assert not (project.root / target).exists()
    assert {path: path.read_bytes() for path in cache if path.exists()} == before
