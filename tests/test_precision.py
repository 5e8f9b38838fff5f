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


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match=r"cuda:1: this machine has 1 GPU"):
        pick_text_device(CacheSettings(), "cuda:1")


def test_the_error_says_where_the_name_stands(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match=r"^--device: cuda: this machine has no usable GPU"):
        pick_device("cuda", "--device")


@pytest.mark.parametrize("name", ["", "mps", "meta", "gpu", "cuda:", "cuda:-1", "cuda:200", "cpu:0", "CUDA", "cuda:1 "])
def test_what_is_no_device(name):
    """torch knows more of them, and takes cuda:200 for cuda:-56."""
    with pytest.raises(ValueError, match="expected auto, cpu, cuda or cuda:0"):
        check_device_name(name)


def test_stored_as_computed_unless_said():
    assert storage_dtype("auto") is None
    assert storage_dtype("bfloat16") == torch.bfloat16
