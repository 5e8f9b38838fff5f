"""What a project will still write, against sizes that are added up another way, and which disks are too full for it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from PIL import Image

from hv15.config.presets import preset_text
from hv15.lora import LoRANetwork
from hv15.models import DiT, DiTConfig
from hv15.plan.disk import ITEM, LEAST_FREE, DiskUse, disk_uses
from hv15.project import Project
from hv15.records.training import STATES_KEPT
from hv15.train.state import Position, StateFolder

RANK = 4


class Usage(NamedTuple):
    """As shutil's own."""

    total: int
    used: int
    free: int


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Two captioned images for the published models, none of which is there."""
    config = yaml.safe_load(preset_text("t2v-24gb"))
    config["datasets"] = [{"image_directory": "images", "resolution": [64, 96], "enable_bucket": False}]
    config["train"] |= {"network_dim": RANK, "network_alpha": RANK, "optimizer_type": "AdamW"}
    config["sample"]["prompts"] = []
    config["cache"] = {"latent_dtype": "float16", "text_dtype": "bfloat16"}
    write(tmp_path, config)
    (tmp_path / "images").mkdir()
    for number in range(2):
        Image.new("RGB", (64, 96), (number * 90, 20, 30)).save(tmp_path / "images" / f"{number}.png")
        (tmp_path / "images" / f"{number}.txt").write_text(f"caption {number}")
    return tmp_path


def write(folder: Path, config: dict[str, Any]) -> None:
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def only_use(folder: Path) -> DiskUse:
    (use,) = disk_uses(Project(folder / "config.yaml"))
    return use


def test_clips_and_texts_that_are_not_encoded(project: Path) -> None:
    use = only_use(project)
    assert use.needs["latents"] == 2 * (32 * (96 // 16) * (64 // 16) * 2 + ITEM)  # numbers of 16 bits
    assert use.needs["texts"] == 2 * ((len("caption 0") // 4 + 20) * 3584 * 2 + ITEM + len("caption 0"))
    config = yaml.safe_load((project / "config.yaml").read_text())
    write(project, {**config, "task": "i2v", "models": {**config["models"], "image_encoder": "models/siglip"}})
    assert only_use(project).needs["latents"] - use.needs["latents"] == 2 * 729 * 1152 * 2


def test_states_are_those_of_the_lora_and_present_ones_count_less(project: Path) -> None:
    """Against the real network and the files of a real state."""
    with torch.device("meta"):
        network = LoRANetwork(DiT(DiTConfig()), rank=RANK, alpha=RANK)
    counters = len(list(network.parameters()))
    kept = (STATES_KEPT + 1) * (network.num_parameters * 3 + counters) * 4  # weights and two moments in fp32
    needs = only_use(project).needs
    assert needs["training states"] == kept
    assert needs["LoRA files"] == network.num_parameters * 4 * (3 + 4)  # trained, published, ComfyUI's; 4 checkpoints

    lora = {"weight": torch.zeros(1000)}
    state = StateFolder(project / "results" / "train" / "state", "spec").save(Position(1, 0.0, 0, "spec", 1), lora, {})
    written = sum(path.stat().st_size for path in state.iterdir())
    assert only_use(project).needs["training states"] == kept - written > 0


@pytest.mark.parametrize(
    ("settings", "states", "copies"),
    [
        ({"max_train_steps": 100, "state_every_n_steps": 250}, 1, 0),
        ({"max_train_steps": 251, "state_every_n_steps": 250}, 2, 0),
        ({"max_train_steps": 5000}, STATES_KEPT + 1, 0),
        ({"max_train_epochs": 5}, STATES_KEPT + 1, 0),
        ({"max_train_epochs": 5, "save_every_n_epochs": 2}, STATES_KEPT + 1, 2),
        ({"max_train_steps": 500, "save_every_n_steps": 100}, 2, 5),
        ({"max_train_steps": 500, "save_every_n_steps": 100, "save_last_n_steps": 2}, 2, 3),
    ],
)
def test_how_many_states_and_copies_there_are_at_once(
    project: Path, settings: dict[str, Any], states: int, copies: int
) -> None:
    needs = {}
    for train in (settings, {"max_train_steps": 1}):
        config = yaml.safe_load((project / "config.yaml").read_text())
        config["train"] = {"network_dim": RANK, "network_alpha": RANK, "optimizer_type": "AdamW", **train}
        config["convert"] = {"formats": []}
        write(project, config)
        needs[len(needs)] = only_use(project).needs
    assert needs[0]["training states"] == states * needs[1]["training states"]
    assert needs[0]["LoRA files"] == (2 + copies) * needs[1]["LoRA files"] / 2


def test_tiles_wait_for_each_other_while_a_sample_is_decoded(project: Path) -> None:
    """As many bytes as the tiles of the largest sample have pixels that is not there: in float32, on a CPU."""
    config = yaml.safe_load((project / "config.yaml").read_text())
    prompts = [
        {"name": "sea", "prompt": "the sea", "video_size": [720, 1280], "video_length": 121},
        {"name": "cat", "prompt": "a cat", "video_size": [480, 848], "video_length": 121, "output_type": "images"},
        {"name": "dog", "prompt": "a dog", "video_size": [720, 1280], "video_length": 161, "output_type": "latent"},
    ]
    settings = {"models": {"source": "hub", "variant": "720p_t2v"}, "runtime": {"device": "cpu"}}
    write(project, {**config, **settings, "sample": {"vae_tile_overlap": 0.25, "prompts": prompts}})
    name, sea, cat = (
        "tiles while a sample is decoded",
        (3 * 256 + 144) * (6 * 256 + 128),
        (2 * 256 + 96) * (4 * 256 + 80),
    )
    assert only_use(project).needs[name] == sea * 3 * 121 * 4
    (project / "results/samples").mkdir(parents=True)
    (project / "results/samples/sea.mp4").touch()
    assert only_use(project).needs[name] == cat * 3 * 121 * 4
    write(project, {**config, **settings, "sample": {"vae_sample_size": 0, "prompts": prompts}})
    assert name not in only_use(project).needs


def test_what_stands_on_one_disk_is_added_up(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use = only_use(project)
    assert use.folders == [project / "cache", project / "results"]
    assert use.needed == sum(use.needs.values())
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(0, 0, use.needed - 7))
    too_small = only_use(project)
    assert (too_small.missing, too_small.is_too_full) == (7, True)


def test_a_nearly_full_disk_is_told_even_if_nothing_is_needed() -> None:
    assert DiskUse(free=LEAST_FREE - 1).is_too_full
    assert not DiskUse(free=LEAST_FREE).is_too_full
    assert DiskUse(free=LEAST_FREE).missing == 0


def test_a_dataset_that_cannot_be_used_leaves_the_rest_of_the_estimate(project: Path) -> None:
    shutil.rmtree(project / "images")
    assert list(only_use(project).needs) == ["training states", "LoRA files"]
