"""Work in windows of tokens: the same numbers as without, and little memory at full size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from bench.bench_activations import sampling_peak, training_peak
from hv15.lora import LoRANetwork
from hv15.models import DiT
from hv15.models.weights.quantised import replace_linears
from hv15.models.windows import windows
from tests.models.golden_dit import case, condition, golden_dit

pytestmark = pytest.mark.numeric

MOST = 16  # tokens of a window: the tiny clips have 60, and no multiple of 64


def velocity(dit: DiT, name: str = "i2v_batch") -> Tensor:
    recorded = case(name)
    cond = condition(recorded, image=name.startswith("i2v"))
    return dit(recorded["in/hidden_states"], recorded["in/timestep"], cond)


@pytest.mark.parametrize(
    ("total", "most", "sizes"),
    [
        (5, 8, [5]),
        (8, 8, [8]),
        (9, 8, [8, 1]),
        (200, 100, [100, 100]),
        (300, 200, [192, 108]),
        (111_600, 8192, [8000] * 13 + [7600]),
    ],
)
def test_windows_are_few_and_of_one_size(total: int, most: int, sizes: list[int]):
    assert [each.stop - each.start for each in windows(total, most)] == sizes
    assert all(each.total == total for each in windows(total, most))


@pytest.mark.parametrize("name", ["t2v_byt5", "i2v_batch"])
def test_sampling_in_windows_gives_the_official_velocity(name: str):
    dit = golden_dit()
    dit.most_tokens = MOST
    with torch.no_grad():
        assert_close(velocity(dit, name), case(name)["out"], atol=1e-5, rtol=0)  # as in test_dit


def gradients(prepare: Callable[[DiT], nn.Module], most: int, *, checkpointing: bool = True) -> dict[str, Tensor]:
    dit = golden_dit()
    network = prepare(dit)
    dit.gradient_checkpointing, dit.most_tokens = checkpointing, most
    velocity(dit).square().mean().backward()
    return {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}


def lora(dit: DiT, **options: Any) -> LoRANetwork:
    network = LoRANetwork(dit, rank=4, alpha=4, **options)
    network.set_step_seed(5)
    for name, parameter in network.named_parameters():
        if "lora_up" in name:
            nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(len(name)))
    return network


def quantised(dit: DiT) -> LoRANetwork:
    linears = {name: part for name, part in dit.double_blocks.named_modules() if isinstance(part, nn.Linear)}
    replace_linears(dit.double_blocks, "fp8", lambda _name: True)
    for name, part in linears.items():
        layer = dit.double_blocks.get_submodule(name)
        layer.quantise_(part.weight)
        layer.bias = part.bias
    return lora(dit)


@pytest.mark.parametrize(
    "prepare",
    [
        lambda dit: dit.requires_grad_(True),
        lora,
        pytest.param(lambda dit: lora(dit, include=["img_mlp"]), marks=pytest.mark.slow),
        lambda dit: lora(dit, dropout=0.3, rank_dropout=0.3, module_dropout=0.3),
        quantised,
    ],
    ids=["all weights", "LoRA", "LoRA on the MLP", "dropout", "fp8"],
)
def test_training_in_windows_gives_the_plain_gradients(prepare: Any):
    """The reference is torch's own autograd, without checkpointing."""
    plain, found = gradients(prepare, 10**6, checkpointing=False), gradients(prepare, MOST)
    assert plain.keys() == found.keys()
    for name, gradient in plain.items():
        assert_close(found[name], gradient, atol=2e-8, rtol=2e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_a_sequence_that_fits_into_a_window_is_computed_as_without():
    plain, found = gradients(lora, 10**6, checkpointing=False), gradients(lora, 10**6)
    assert all(torch.equal(gradient, found[name]) for name, gradient in plain.items())


def test_hooks_on_a_parameter_see_one_finished_gradient():
    """Optimizers that step inside the backward pass rely on such hooks."""
    dit = golden_dit().requires_grad_(True)
    dit.gradient_checkpointing, dit.most_tokens = True, MOST
    seen: dict[str, list[Tensor]] = {}
    for name, parameter in dit.named_parameters():
        note = seen.setdefault(name, [])
        parameter.register_post_accumulate_grad_hook(lambda each, note=note: note.append(each.grad.clone()))
    velocity(dit).square().mean().backward()
    for name, parameter in dit.named_parameters():
        assert len(seen[name]) == (parameter.grad is not None), name
        assert parameter.grad is None or torch.equal(seen[name][0], parameter.grad), name


def test_gradients_add_up_over_backward_passes():
    dit = golden_dit()
    network = lora(dit)
    dit.gradient_checkpointing, dit.most_tokens = True, MOST
    for _ in range(2):
        velocity(dit).square().mean().backward()
    once = gradients(lora, MOST)
    for name, parameter in network.named_parameters():
        if name in once:
            assert_close(parameter.grad, 2 * once[name])


@pytest.mark.slow
def test_one_block_of_the_real_width_at_720p_and_121_frames():
    """musubi needs 10.64 and 4.97 GiB, diffusers 30.1 and 26.1; a copy of the tokens is 0.43."""
    assert 4.0 < training_peak() <= 7.0
    assert 2.0 < sampling_peak() <= 2.6
