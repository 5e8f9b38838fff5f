"""Options that change only memory or speed: a whole training gives the same LoRA, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from hv15.errors import UserError
from hv15.models import DiT
from hv15.models.dit_files import save_dit
from hv15.models.weights.swap import AbsentWeight
from hv15.train.run import train
from tests.train.world import CONFIG, run, settings, spec_of, tiny_dit, tiny_stores

BLOCKS = replace(CONFIG, num_blocks=4)
PLAIN = {"max_train_steps": 2, "network_dropout": 0.2, "gradient_checkpointing": True}


@pytest.fixture(autouse=True)
def no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hv15.train.metadata.git_commit", lambda: None)


def tensors(folder: Path, *, most_tokens: int | None = None, **options: Any) -> dict[str, torch.Tensor]:
    dit = tiny_dit(BLOCKS)
    if most_tokens is not None:
        dit.most_tokens = most_tokens
    return load_file(run(folder, settings("i2v", **{**PLAIN, **options}), dit=dit))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return tensors(tmp_path_factory.mktemp("plain"), gradient_checkpointing=False)


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"blocks_to_swap": 2}, marks=pytest.mark.slow),
        pytest.param({"gradient_checkpointing_cpu_offload": True}, marks=pytest.mark.slow),
        pytest.param({"split_attn": True}, marks=pytest.mark.slow),
        pytest.param({"attn_mode": "sdpa"}, marks=pytest.mark.slow),
        {"blocks_to_swap": 1, "gradient_checkpointing_cpu_offload": True, "split_attn": True},
    ],
    ids=lambda options: "+".join(options) or "checkpointing",
)
def test_the_lora_has_the_same_bits(
    tmp_path: Path, plain: dict[str, torch.Tensor], options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hv15.models.weights.offload.LEAST", 1)
    found = tensors(tmp_path, **options)
    assert found.keys() == plain.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in plain.items())


def test_in_windows_of_tokens_only_sums_differ(tmp_path: Path, plain: dict[str, torch.Tensor]) -> None:
    """With the options that then take another path, not even those."""
    options = {"blocks_to_swap": 2, "gradient_checkpointing_cpu_offload": True}
    windows = tensors(tmp_path / "windows", most_tokens=40)  # 20 for each of two samples
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hv15.models.weights.offload.LEAST", 1)
        together = tensors(tmp_path / "together", most_tokens=40, **options)
    assert not all(torch.equal(tensor, windows[name]) for name, tensor in plain.items())
    for name, tensor in plain.items():
        assert_close(windows[name], tensor, atol=2e-4, rtol=1e-3)
        assert torch.equal(windows[name], together[name]), name


@pytest.mark.slow
def test_the_options_work_from_the_model_file_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader leaves waiting blocks on the host, quantised ones too."""
    items, stores = tiny_stores(tmp_path / "cache")
    save_dit(tiny_dit(BLOCKS), tmp_path / "dit.safetensors")
    found, away = [], []
    forward = DiT.forward

    def note(dit: DiT, *rest: Any, **named: Any) -> torch.Tensor:
        away.append(sum(isinstance(each, AbsentWeight) for each in dit.parameters()))
        return forward(dit, *rest, **named)

    monkeypatch.setattr(DiT, "forward", note)
    for name, options in (("plain", {}), ("swap", {"blocks_to_swap": 2})):
        config, output = settings(**{**PLAIN, "quantize": "fp8", **options}), tmp_path / name / "lora.safetensors"
        train(config, spec_of(config), items, stores, output, dit_path=tmp_path / "dit.safetensors")
        found.append(load_file(output))
        assert bool(away.pop()) == (name == "swap")
        assert not any(away[:1]) or name == "swap"
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


def test_quantisation_changes_the_numbers_a_little(tmp_path: Path, plain: dict[str, torch.Tensor]) -> None:
    items, stores = tiny_stores(tmp_path / "cache")
    save_dit(tiny_dit(BLOCKS), tmp_path / "dit.safetensors")
    config, output = settings("i2v", **{**PLAIN, "quantize": "int8"}), tmp_path / "lora.safetensors"
    train(config, spec_of(config), items, stores, output, dit_path=tmp_path / "dit.safetensors")
    found = load_file(output)
    assert not all(torch.equal(tensor, found[name]) for name, tensor in plain.items())
    both = [torch.cat([tensor.flatten() for _, tensor in sorted(each.items())]) for each in (plain, found)]
    assert torch.nn.functional.cosine_similarity(*both, dim=0) > 0.95


def test_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    dit = tiny_dit(BLOCKS)
    before = {name: tensor.clone() for name, tensor in dit.state_dict().items()}
    options = {"blocks_to_swap": 2, "gradient_checkpointing_cpu_offload": True, "split_attn": True}
    run(tmp_path, settings(**{**PLAIN, **options}), dit=dit)
    assert (dit.block_hooks, dit.gradient_checkpointing, dit.attention.split) == ((), False, False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in dit.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"blocks_to_swap": 3}, "blocks_to_swap: 3, but"), ({"attn_mode": "flash"}, "attn_mode: flash runs only on GPUs")],
)
def test_what_this_machine_or_model_cannot_do_is_said(tmp_path: Path, options: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(tmp_path, settings(**{**PLAIN, **options}), dit=tiny_dit(BLOCKS))
