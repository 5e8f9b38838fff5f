"""A setting is marked as of the past exactly if the steps that are done depend on it: each is edited and trained."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from hv15.cache.batches import Stores, TrainingItem
from hv15.config import Settings, fields
from hv15.config.section import Affects
from tests.project.setting_edits import EDITS
from tests.train.world import run, settings, tiny_stores
from tests.workflow.project import merge

MARKS = {field.path: field.affects for field in fields(Settings)}
STEPS = 3
OF_THE_PAST = {Affects.PAST, Affects.NETWORK}
ELSEWHERE = {
    "network_weights", "dim_from_weights", "base_weights[].path", "base_weights[].multiplier",  # need files
    "continue_from", "reset_optimizer", "quantize", "dtype",
    "num_processes", "num_machines", "context_parallel", "shard_base", "compile", "compile_mode", "compile_dynamic",
    "compile_backend", "compile_fullgraph",
    "gradient_accumulation_steps",  # of the steps, not of the past: the product counts
    "ema_decay",  # its average is of the past, and in a file of its own
    "blocks_to_swap", "gradient_checkpointing_cpu_offload",  # tests/train/test_memory_options.py
    "save_precision",  # of the file
    "max_train_epochs", "trackers",
    "validation.fraction", "validation.patience",  # of the clips and the length; they have tests of their own
}  # fmt: skip
"""Settings whose effect another test shows, or that this world does not have."""
STRONGER: dict[str, Any] = {
    "caption_dropout": 1.0,
    "min_snr_gamma": 1e-3,
    "max_grad_norm": 1e-3,
    "scale_weight_norms": 1e-3,
    "network_dropout": 0.5,
    "rank_dropout": 0.5,
    "module_dropout": 0.5,
    "max_train_steps": STEPS,
    "publish_step": 2,
    "layer_blocks": [1, 1],
    "previews": [],
}
"""Values that show within a few steps of a tiny model."""


ALIKE = {
    "validation.every_n_steps", "validation.every_n_epochs", "validation.at_first", "validation.samples",
    "validation.noise_levels",
    "lr_scheduler_min_lr", "lr_scheduler_min_lr_ratio", "lr_scheduler_power", "lr_scheduler_num_cycles",
    "lr_scheduler_timescale", "lr_decay_steps", "learning_rate_patterns", "loraplus_lr_ratio", "optimizer_args",
    "preview_average", "preview.infer_steps", "preview.video_size", "preview.video_length", "preview_at_first",
    "preview_every_n_epochs", "previews",
    "logit_mean", "logit_std", "beta_alpha", "beta_beta", "mode_scale", "sigmoid_scale", "min_timestep",
    "max_timestep", "num_timestep_buckets", "preserve_distribution_shape",
    "min_snr_gamma", "huber_c", "huber_schedule",
    "lokr_factor", "lokr_full_matrix", "network_dim_patterns", "network_alpha", "network_alpha_patterns",
    "rank_dropout", "module_dropout", "layer_blocks", "exclude_patterns",
    "save_last_n_steps", "save_every_n_epochs", "save_last_n_epochs", "state_every_n_steps", "publish_step",
    "ema_device", "max_bad_steps", "attn_mode", "split_attn", "tracker_project",
}  # fmt: skip
"""Settings of a kind of which others are tested by default; a new setting is, too."""


def edits() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Setting -> the sections of `train` before and after."""
    found = {}
    for path, edit in EDITS.items():
        name = path.removeprefix("train.")
        if path == name or name in ELSEWHERE or name.startswith("validation.datasets"):
            continue
        before = edit.before.get("train", {})
        after = {name: STRONGER[name]} if name in STRONGER else edit.after["train"]
        found[name] = (before, merge(before, after))
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[TrainingItem], Stores]:
    return tiny_stores(tmp_path_factory.mktemp("cache"), 8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data: tuple[list[TrainingItem], Stores]) -> Any:
    """Trains with settings, and returns the LoRA."""

    @cache
    def train(options: str) -> dict[str, Tensor]:
        config = settings("i2v", **{"max_train_steps": STEPS, **json.loads(options)})
        return load_file(run(tmp_path_factory.mktemp("run"), config, data=data))

    return lambda options: train(json.dumps(options))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in ALIKE else name for name in edits()]
)
def test_the_steps_that_are_done_depend_on_what_is_of_the_past(name: str, trained: Any) -> None:
    before, after = edits()[name]
    one, other = trained(before), trained(after)
    same = one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert same == (MARKS[f"train.{name}"] not in OF_THE_PAST)
