"""A whole training from files: what settings do, what the LoRA says about itself, what is refused beforehand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from hv15.cache.batches import Stores, TrainingItem
from hv15.errors import UserError
from hv15.lora import convert, save_lora
from hv15.models.dit_files import save_dit
from hv15.train.checkpoints import CheckpointRule
from hv15.train.examples import EMPTY_CAPTION
from hv15.train.loop import LoopSettings
from hv15.train.networks import make_network
from hv15.train.run import check_items, make_optimizer_step, make_reader, train
from hv15.train.schedules import Schedule
from hv15.train.timesteps import SigmaRule
from hv15.train.told_config import told_config
from hv15.train.weighting import LossWeight
from tests.train.world import metrics, run, settings, spec_of, tiny_dit, tiny_stores


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


@pytest.fixture
def data(tmp_path: Path) -> tuple[list[TrainingItem], Stores]:
    return tiny_stores(tmp_path / "cache")


def test_from_a_model_file_to_a_lora_file(tmp_path: Path, data: Any) -> None:
    items, stores = data
    save_dit(tiny_dit(), tmp_path / "dit.safetensors")
    config, output = settings("i2v", max_train_steps=3), tmp_path / "results" / "lora.safetensors"
    train(config, spec_of(config), items, stores, output, dit_path=tmp_path / "dit.safetensors")
    same = run(tmp_path / "memory", config, data=data)
    assert {name: tensor.tolist() for name, tensor in load_file(output).items()} == {
        name: tensor.tolist() for name, tensor in load_file(same).items()
    }
    assert metadata(output)["ss_sd_model_name"] == "dit.safetensors"
    assert sorted(path.name for path in output.parent.iterdir()) == ["lora.safetensors", "train", "train.lock"]


def test_the_lora_says_what_it_was_made_from_and_no_time(tmp_path: Path) -> None:
    config = settings(max_train_steps=4, seed=9, discrete_flow_shift=5.0)
    entries = metadata(run(tmp_path, config))
    assert json.loads(entries["hv15.config"]) == told_config(config.dump(), {})
    assert json.loads(entries["hv15.made_from"]) == spec_of(config)
    expected = {
        "hv15.task": "t2v",
        "hv15.seed": "9",
        "hv15.shift": "5.0",
        "hv15.steps": "4",
        "hv15.dataset_digest": "d",
        "hv15.dataset_size": "6",
        "hv15.dit": "tiny",
        "hv15.clips": "6",
        "hv15.sizes": "[[1, 4, 6], [2, 6, 4], [3, 4, 6]]",
        "ss_network_dim": "4",
        "modelspec.architecture": "hunyuan-video-1.5/lora",
    }
    assert expected.items() <= entries.items()
    assert not [name for name in entries if "time" in name or "date" in name]
    summary = json.loads((tmp_path / "train" / "summary.json").read_text())
    assert summary["steps"] == 4
    assert summary["finished"] > 1e9


def test_one_line_tells_the_loss_at_start_and_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, settings(max_train_steps=12))
    losses = [record["loss"] for record in metrics(tmp_path)]
    assert f"loss {losses[0]:.4f} at the start, {losses[-1]:.4f} at the end" in capsys.readouterr().err


def test_epochs_decide_the_length_when_they_are_given(tmp_path: Path) -> None:
    run(tmp_path, settings(max_train_steps=None, max_train_epochs=3, gradient_accumulation_steps=2))
    assert [record["epoch"] for record in metrics(tmp_path)] == [0.6667, 1.3333, 2.0, 2.6667, 3.3333]


def test_patterns_and_precision_decide_what_is_in_the_file(tmp_path: Path) -> None:
    tensors = load_file(run(tmp_path, settings(include_patterns=["img_attn_q"], save_precision="bfloat16")))
    assert {name.split(".")[0] for name in tensors} == {f"lora_unet_double_blocks_{n}_img_attn_q" for n in range(2)}
    assert {tensor.dtype for name, tensor in tensors.items() if name.endswith(".weight")} == {torch.bfloat16}


@pytest.mark.parametrize(
    "layout", ["kohya", *(pytest.param(name, marks=pytest.mark.slow) for name in ("comfyui", "diffusers", "official"))]
)
def test_a_training_starts_from_a_lora_of_any_layout(tmp_path: Path, layout: Any) -> None:
    first = load_file(run(tmp_path / "first", settings(max_train_steps=3)))
    converted, entries = convert(first, to=layout)
    save_lora(tmp_path / "start.safetensors", converted, entries)
    still = settings(max_train_steps=1, learning_rate=1e-12, network_weights=str(tmp_path / "start.safetensors"))
    second = load_file(run(tmp_path / "second", still))
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(second[name], first[name], atol=1e-6, rtol=1e-5)


def test_a_lora_of_another_rank_is_refused(tmp_path: Path) -> None:
    run(tmp_path, settings(max_train_steps=1))
    other = settings(network_dim=8, network_weights=str(tmp_path / "lora.safetensors"))
    with pytest.raises(UserError, match="network_weights"):
        run(tmp_path / "other", other)


def test_lost_items_are_counted_before_a_model_is_loaded(tmp_path: Path, data: Any) -> None:
    items, stores = data
    stores.latents.remove(items[0].clip)
    config = settings()
    with pytest.raises(UserError, match="1 of 6 encoded clips are missing") as caught:
        train(config, spec_of(config), items, stores, tmp_path / "l.safetensors", dit_path=tmp_path / "absent")
    assert "repair" in caught.value.hint


def test_all_texts_that_can_be_drawn_are_needed(data: Any) -> None:
    items, stores = data
    check_items(settings().train, [replace(items[0], variants=(items[1].caption, items[2].caption))], stores)
    lacking = replace(items[0], variants=(items[1].caption, "gone"))
    with pytest.raises(UserError, match=r"1 of 2 encoded captions are missing.*gone"):
        check_items(settings().train, [lacking], stores)


def test_caption_dropout_needs_the_empty_caption(data: Any) -> None:
    items, stores = data
    stores.texts.remove(EMPTY_CAPTION)
    check_items(settings().train, items, stores)
    with pytest.raises(UserError, match="1 of 7 encoded captions are missing"):
        check_items(settings(caption_dropout=0.1).train, items, stores)


def test_float16_weights_are_refused_for_bfloat16_training(tmp_path: Path, data: Any) -> None:
    items, stores = data
    save_dit(tiny_dit(), tmp_path / "dit.safetensors", dtype=torch.float16)
    config = settings(dtype="bfloat16")
    with pytest.raises(UserError, match="float16 weights") as caught:
        train(config, spec_of(config), items, stores, tmp_path / "l.safetensors", dit_path=tmp_path / "dit.safetensors")
    assert "bfloat16" in caught.value.hint


def test_a_bfloat16_base_trains_fp32_weights(tmp_path: Path) -> None:
    tensors = load_file(run(tmp_path, settings(max_train_steps=2), dit=tiny_dit().to(torch.bfloat16)))
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert all(record["loss"] < 10 for record in metrics(tmp_path))


def test_the_settings_reach_the_parts_that_use_them(data: Any) -> None:
    _, stores = data
    config = settings(
        "i2v",
        timestep_sampling="logit_normal",
        discrete_flow_shift=5.0,
        sigmoid_scale=1.5,
        logit_mean=0.25,
        logit_std=0.5,
        min_timestep=10,
        max_timestep=900,
        weighting_scheme="cosmap",
        mode_scale=1.1,
        min_snr_gamma=7,
        loss_type="huber",
        i2v_prob=0.3,
        caption_dropout=0.2,
        seed=77,
        lr_scheduler="cosine",
        lr_warmup_steps=0.25,
        max_grad_norm=0.5,
        loraplus_lr_ratio=4,
        learning_rate_patterns={"img_mlp": "0.1x"},
        scale_weight_norms=0.7,
        state_every_n_steps=11,
        save_every_n_epochs=2,
        save_last_n_epochs=3,
    )
    reader = make_reader(config, stores)
    assert reader.sigma_rule == SigmaRule(config.train)
    assert reader.loss_weight == LossWeight("cosmap", 0.25, 0.5, 1.1, 7.0)
    assert (reader.seed, reader.i2v_prob, reader.caption_dropout) == (77, 0.3, 0.2)
    loop = LoopSettings.from_settings(config.train, total_steps=80)
    assert loop.schedule == Schedule("cosine", 80, warmup=20)
    assert (loop.state_every_n_steps, loop.total_steps) == (11, 80)
    copies = CheckpointRule.from_settings(config.train)
    assert (copies.save_every_n_epochs, copies.save_last_n_epochs) == (2, 3)
    dit = tiny_dit()
    step = make_optimizer_step(config.train, dit, make_network(config, dit), torch.device("cpu"))
    assert (step.seed, step.max_grad_norm) == (77, 0.5)
    rates = {str(group["name"]): group["initial_lr"] for group in step.optimizer.param_groups}
    assert rates == pytest.approx({"down": 1e-2, "up": 4e-2, "down at 0.001": 1e-3, "up at 0.001": 4e-3})
    assert step.norm_limit is not None
    assert (step.norm_limit.most, len(step.norm_limit.layers)) == (0.7, len(step.network.module_names))  # type: ignore[attr-defined]
    assert step.loss.settings.loss_type == "huber"
    assert make_reader(settings("t2v", i2v_prob=0.3), stores).i2v_prob == 0.0
