"""What a project asks of each stage before anything is encoded, counted by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from hv15.config.presets import preset_text
from hv15.models.templates import MAX_TEXT_TOKENS
from hv15.plan.workload import TEMPLATE, ClipBatch, Workload, workload
from hv15.project import Project


def planned(folder: Path, captions: list[str], datasets: list[dict[str, Any]], **train: Any) -> Workload:
    """Of captioned images of 64 x 96 pixels, in several datasets."""
    (folder / "images").mkdir(exist_ok=True)
    for number, caption in enumerate(captions):
        Image.new("RGB", (96, 64), (number, 20, 30)).save(folder / "images" / f"{number}.png")
        (folder / "images" / f"{number}.txt").write_text(caption)
    config = yaml.safe_load(preset_text("t2v-24gb"))
    config["datasets"] = [{"image_directory": "images", **dataset} for dataset in datasets]
    config["train"] |= {"max_train_steps": None, "max_train_epochs": 2, **train}
    config["sample"]["prompts"] = []
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return workload(Project(folder / "config.yaml"))


def test_a_plain_dataset(tmp_path: Path) -> None:
    work = planned(tmp_path, ["one", "two", "three"], [{"resolution": [96, 64], "batch_size": 2, "num_repeats": 3}])
    assert work.batch == ClipBatch(2, 1, 64, 96, repeats=3)
    assert (work.clips, work.batches, work.steps) == (3, 5, 10)  # 9 are shown in an epoch, 2 at a time
    assert work.mean_tokens == work.batch.tokens == 2 * 4 * 6
    assert (work.texts, work.videos) == (4, ())  # the empty caption, too


def test_of_two_datasets_the_larger_batch_counts_and_tokens_are_weighted(tmp_path: Path) -> None:
    datasets = [{"resolution": [96, 64], "num_repeats": 3}, {"resolution": [192, 128], "num_repeats": 1}]
    work = planned(tmp_path, ["one", "two"], datasets, gradient_accumulation_steps=4)
    assert work.batch == ClipBatch(1, 1, 128, 192)
    assert (work.clips, work.batches, work.steps) == (4, 8, 4)
    assert work.mean_tokens == (3 * 4 * 6 + 8 * 12) / 4


def test_passes_without_the_lora_are_a_share_of_what_is_shown(tmp_path: Path) -> None:
    """Two files, one with a mask, shown three times and masked in three of four; and once as regularisation."""
    (tmp_path / "images").mkdir()
    Image.new("L", (96, 64)).save(tmp_path / "images" / "0.mask.png")
    masked = {"masked_prior_preservation_weight": 1.0, "unmasked_probability": 0.25, "num_repeats": 3}
    datasets = [{"resolution": [96, 64], **masked}, {"resolution": [96, 64], "is_reg": True}]
    work = planned(tmp_path, ["one", "two"], datasets)
    assert work.prior_share == (3 * 0.75 + 2) / (2 * 3 + 2)


def test_passes_without_the_lora_count_in_the_steps_of_their_datasets(tmp_path: Path) -> None:
    """Regularisation takes part in 4 of 8 steps; there it is a third of what is shown."""
    datasets = [{"resolution": [96, 64], "num_repeats": 2}, {"resolution": [96, 64], "is_reg": True, "start_step": 4}]
    work = planned(tmp_path, ["one", "two"], datasets, max_train_epochs=None, max_train_steps=8)
    assert work.prior_share == pytest.approx((4 * 0 + 4 / 3) / 8)
    ended = [datasets[0], {"resolution": [96, 64], "is_reg": True, "end_step": 2}]
    work = planned(tmp_path, ["one", "two"], ended, max_train_epochs=None, max_train_steps=8)
    assert work.prior_share == pytest.approx((2 / 3 + 6 * 0) / 8)


@pytest.mark.parametrize("length", [{"max_train_epochs": 4}, {"max_train_epochs": None, "max_train_steps": 13}])
def test_datasets_that_begin_and_end_are_counted_in_their_steps(tmp_path: Path, length: dict[str, Any]) -> None:
    """As tests/train/test_scheduled.py counts them: 9 batches an epoch, then 12, then 7."""
    sizes = {"resolution": [96, 64]}
    datasets = [
        {**sizes, "num_repeats": 5, "end_step": 6},
        {**sizes, "num_repeats": 3, "start_step": 4},
        {"resolution": [192, 128], "num_repeats": 4},
    ]
    work = planned(tmp_path, ["one"], datasets, gradient_accumulation_steps=2, **length)
    assert [(each.span.start, each.steps, each.batches) for each in work.parts] == [(0, 4, 9), (4, 2, 12), (6, 7, 7)]
    assert (work.steps, work.batches) == (13, 7)
    small, large = 4 * 6, 8 * 12
    means = [(5 * small + 4 * large) / 9, (8 * small + 4 * large) / 12, (3 * small + 4 * large) / 7]
    assert work.mean_tokens == pytest.approx((4 * means[0] + 2 * means[1] + 7 * means[2]) / 13)


def test_all_texts_that_can_be_drawn_are_counted(tmp_path: Path) -> None:
    texts = {"caption_variants": True, "shuffle_tags": True, "caption_versions": 5, "max_num_samples": 1}
    work = planned(tmp_path, ["a, b, c, d, e, f, g\nA, B, C, D, E, F, G"] * 2, [{"resolution": [96, 64], **texts}])
    assert (work.clips, work.texts) == (1, 2 * 5 + 1)


@pytest.mark.parametrize(("length", "tokens"), [(30, 10 + TEMPLATE), (9000, MAX_TEXT_TOKENS)])
def test_the_longest_text_counts(tmp_path: Path, length: int, tokens: int) -> None:
    assert planned(tmp_path, ["a" * length, "b"], [{"resolution": [96, 64]}]).text_tokens == tokens
