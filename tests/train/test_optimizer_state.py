"""What an optimizer keeps comes back to the bit, and a look at averaged weights changes nothing."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from schedulefree import AdamWScheduleFree
from torch import Tensor, nn

from hv15.lora import LoRANetwork
from hv15.lora.names import kohya_name
from hv15.train.optimizer_state import averaged, averages, restore_state, state_of
from hv15.train.state import Position, StateFolder
from tests.train.optimizers import ARGS, matrices, optimizer_of, stepped
from tests.train.world import run, settings, tiny_dit

pytestmark = [
    pytest.mark.numeric,
    pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU"),
]
BY_PATH = ("torch.optim.RAdam", "pytorch_optimizer.SOAP", "pytorch_optimizer.ScheduleFreeRAdam")
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in (*ARGS, *BY_PATH)),
    ("AdamW", {"amsgrad": True}),
    ("Adafactor", {"beta1": 0.9, "scale_parameter": True}),
    ("CAME", {"ams_bound": True}),
    ("AdEMAMix", {"t_alpha": 7, "t_beta3": 7}),
    ("Prodigy", {"slice_p": 11, "weight_decay": 0.1, "use_bias_correction": True}),
    ("ProdigyPlusScheduleFree", {"factored": False, "use_speed": True}),
    ("ProdigyPlusScheduleFree", {"use_schedulefree": False}),
]


def as_bytes(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def facts(value: object) -> object:
    """Everything in a state that can be compared: numbers, and the formats and bytes of tensors."""
    if isinstance(value, Tensor):
        return value.dtype, value.shape, value.contiguous().view(torch.uint8).numpy().tobytes() if value.ndim else value
    if isinstance(value, dict):
        return {key: facts(each) for key, each in value.items()}
    return [facts(each) for each in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize(("name", "args"), VARIANTS, ids=lambda each: each if isinstance(each, str) else "-".join(each))
def test_a_training_that_stopped_goes_on_to_the_bit(name: str, args: dict[str, Any], tmp_path: Path) -> None:
    """9 steps in one go; and 5, the state in a folder, and 4 more from what torch reads without running any code."""
    straight = matrices()
    whole = optimizer_of(name, straight, **args)
    stepped(whole, straight, range(9))

    parts = matrices()
    first = optimizer_of(name, parts, **args)
    stepped(first, parts, range(5))
    folder = StateFolder(tmp_path, "spec")
    weights = {str(number): parameter for number, parameter in enumerate(parts)}
    folder.save(Position(5, 0.0, 0, "spec", 1), weights, state_of(first))
    saved = folder.load_latest()
    assert saved is not None
    again = [nn.Parameter(saved.lora[key]) for key in weights]
    resumed = optimizer_of(name, again, **args)
    restore_state(resumed, saved.optimizer)
    assert facts(state_of(resumed)) == facts(state_of(first))
    stepped(resumed, again, range(5, 9))

    assert as_bytes(again) == as_bytes(straight)
    assert facts(state_of(resumed)) == facts(state_of(whole))
    assert not any(map(torch.equal, straight, matrices()))


def test_what_is_kept_in_bfloat16_comes_back_in_bfloat16() -> None:
    """torch's own loading turns it into float32, which rounds differently from then on."""
    parameters = matrices()
    optimizer = optimizer_of("ProdigyPlusScheduleFree", parameters)
    stepped(optimizer, parameters, range(2))
    state = state_of(optimizer)
    torchs, ours = (optimizer_of("ProdigyPlusScheduleFree", parameters) for _ in range(2))
    torchs.load_state_dict(state)
    restore_state(ours, state)
    assert torchs.state[parameters[0]]["s"].dtype == torch.float32
    assert ours.state[parameters[0]]["s"].dtype == optimizer.state[parameters[0]]["s"].dtype == torch.bfloat16


def test_state_in_pages_is_in_pages_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """bitsandbytes itself loads it into the GPU's own memory. Only GPUs have pages: here a list stands for them."""
    parameters = matrices()
    optimizer = optimizer_of("PagedAdamW8bit", parameters)
    stepped(optimizer, parameters, range(2))
    resumed, pages = optimizer_of("PagedAdamW8bit", parameters), []

    def paged(parameter: Tensor, dtype: torch.dtype) -> Tensor:
        pages.append(torch.zeros_like(parameter, dtype=dtype))
        return pages[-1]

    monkeypatch.setattr(resumed, "get_state_buffer", paged)
    restore_state(resumed, state_of(optimizer))
    kept = [resumed.state[parameter][name] for parameter in parameters for name in ("state1", "state2")]
    assert list(map(id, kept)) == list(map(id, pages))
    assert facts(state_of(resumed)) == facts(state_of(optimizer))


def test_attributes_of_tensors_are_not_saved() -> None:
    """bitsandbytes marks pages so; loaded tensors that claim to be pages would be asked for them."""
    parameters = matrices()
    optimizer = optimizer_of("AdamW8bit", parameters)
    stepped(optimizer, parameters, range(1))
    optimizer.state[parameters[0]]["state1"].is_paged = True
    [quantised] = state_of(optimizer)["state"][0].keys() - {"step"}
    loaded = torch.load(io.BytesIO(as_bytes(state_of(optimizer))), weights_only=True)
    assert not hasattr(loaded["state"][0][quantised]["state1"], "is_paged")


# -- averages -------------------------------------------------------------------------------------------------------


def test_the_average_is_the_mean_of_where_the_steps_led() -> None:
    """Defazio et al. 2024, "The Road Less Scheduled": x is the running mean of z, and gradients are taken at y."""
    parameters = matrices()
    optimizer = optimizer_of("AdamWScheduleFree", parameters)
    visited = []
    for step in range(6):
        stepped(optimizer, parameters, [step])
        visited.append([optimizer.state[parameter]["z"].clone() for parameter in parameters])
    before = [parameter.detach().clone() for parameter in parameters]
    with averaged(optimizer):
        for number, parameter in enumerate(parameters):
            mean = torch.stack([each[number] for each in visited]).mean(0)
            torch.testing.assert_close(parameter.detach(), mean, atol=1e-5, rtol=1e-4)
            assert not torch.equal(parameter, before[number])
    assert all(map(torch.equal, parameters, before))


@pytest.mark.parametrize("name", ["AdamWScheduleFree", "ProdigyPlusScheduleFree"])
def test_a_look_at_the_average_changes_nothing(name: str) -> None:
    undisturbed, looked_at = matrices(), matrices()
    stepped(optimizer_of(name, undisturbed), undisturbed, range(6))
    optimizer = optimizer_of(name, looked_at)
    for step in range(6):
        stepped(optimizer, looked_at, [step])
        with averaged(optimizer):
            pass
    assert as_bytes(looked_at) == as_bytes(undisturbed)


def test_our_warm_up_is_that_of_the_class() -> None:
    ours, theirs = matrices(), matrices()
    optimizer = optimizer_of("AdamWScheduleFree", ours)
    for step in range(6):
        stepped(optimizer, ours, [step], factor=min(1.0, (step + 1) / 4))
    reference = AdamWScheduleFree(theirs, lr=0.01, warmup_steps=4)
    reference.train()
    stepped(reference, theirs, range(6))
    assert as_bytes(ours) == as_bytes(theirs)


def test_others_have_no_average() -> None:
    parameters = matrices()
    optimizer = optimizer_of("AdamW", parameters)
    assert not averages(optimizer)
    with averaged(optimizer):
        assert as_bytes(parameters) == as_bytes(matrices())


def test_the_lora_and_its_checkpoints_are_the_average(tmp_path: Path) -> None:
    """And the state holds what goes on; a training without checkpoints gives the same LoRA."""
    options = {"optimizer_type": "AdamWScheduleFree", "max_train_steps": 4}
    lora = load_file(run(tmp_path / "plain", settings(**options)))
    saved = load_file(run(tmp_path / "saved", settings(**options, save_every_n_steps=1)))
    assert {key: facts(value) for key, value in lora.items()} == {key: facts(value) for key, value in saved.items()}
    state = tmp_path / "saved" / "train" / "state" / "step-000004"
    trained = load_file(state / "lora.safetensors")
    optimizer = torch.load(state / "optimizer.pt", weights_only=True)
    names = LoRANetwork(tiny_dit(), rank=1, alpha=1).module_names
    ups = [f"{kohya_name(name)}.lora_up.weight" for name in names]
    moved = [each["z"] for each in optimizer["state"].values()][len(ups) :]
    for key, z in zip(ups, moved, strict=True):
        y = trained[key]
        torch.testing.assert_close(lora[key], (y - 0.1 * z) / 0.9, atol=1e-6, rtol=1e-4)
    assert any(not torch.equal(lora[key], trained[key]) for key in ups)
    first = load_file(tmp_path / "saved" / "train" / "checkpoints" / "lora-step000001.safetensors")
    assert any(not torch.equal(first[key], lora[key]) for key in ups)
