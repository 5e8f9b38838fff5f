"""Devices and number formats, where a machine without a GPU can tell."""

import pytest
import torch

from hv15.config.cache import CacheSettings
from hv15.errors import UserError
from hv15.precision import (
    check_device_name,
    pick_device,
    pick_dtype,
    pick_encoder_dtype,
    pick_text_device,
    storage_dtype,
)


def test_prompts_are_encoded_on_the_cpu_when_asked(monkeypatch):
    """`text_encoder_cpu` is for machines that have a GPU, which Qwen does not fit into; float32, as CPUs compute it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name in ("auto", "cuda", "cuda:0"):
        assert pick_text_device(CacheSettings(), name).type == "cuda"
        device = pick_text_device(CacheSettings(text_encoder_cpu=True), name)
        assert device.type == "cpu"
        assert pick_encoder_dtype("auto", device) == torch.float32


def test_a_cpu_never_computes_in_half_precision_by_itself():
    assert pick_dtype("auto", torch.device("cpu")) == torch.float32
    assert pick_encoder_dtype("auto", torch.device("cpu")) == torch.float32


@pytest.mark.parametrize(
    ("name", "count", "found"),
    [
        ("cuda:1", 1, "this machine has 1 GPU, numbered from 0"),
        ("cuda:30", 2, "this machine has 2 GPUs, numbered from 0"),
        ("cuda", 0, "this machine has no usable GPU"),
        ("gpu", 1, "found 'gpu', expected auto, cpu, cuda or cuda:0"),
    ],
)
def test_a_device_that_is_not_there_is_named_as_it_was_given(name, count, found, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(UserError, match=f"runtime.device: {name}: {found}") as caught:
        pick_text_device(CacheSettings(), name)
    assert caught.value.hint == "set runtime.device to auto"
    with pytest.raises(UserError, match=f"--device {name}: {found}") as caught:
        pick_device(name, option="--device")
    assert caught.value.hint == "use --device auto"


@pytest.mark.parametrize("name", ["", "mps", "meta", "gpu", "cuda:", "cuda:-1", "cuda:200", "cpu:0", "CUDA", "cuda:1 "])
def test_what_is_no_device(name):
    """torch knows more of them, and takes cuda:200 for cuda:-56."""
    with pytest.raises(ValueError, match="expected auto, cpu, cuda or cuda:0"):
        check_device_name(name)


def test_stored_as_computed_unless_said():
    assert storage_dtype("auto") is None
    assert storage_dtype("bfloat16") == torch.bfloat16
