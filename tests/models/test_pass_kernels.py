"""Where Triton cannot make kernels, torch's operations are used."""

from __future__ import annotations

import logging
import sys
from types import ModuleType

import pytest
import torch

from hv15.models import pass_kernels

GPU = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _not_tried_yet():
    pass_kernels.triton_works.cache_clear()
    yield
    pass_kernels.triton_works.cache_clear()


def install(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> list[torch.device]:
    """Let Triton be installed; return the devices on which it is tried out."""
    tried: list[torch.device] = []
    module = ModuleType("hv15.models.triton_kernels")

    def try_out(device: torch.device) -> None:
        tried.append(device)
        if error is not None:
            raise error

    module.try_out = try_out  # type: ignore[attr-defined]
    monkeypatch.setattr(pass_kernels, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("hv15.models.triton_kernels", module, raising=False)
    return tried


def test_kernels_are_used_where_one_could_be_made(monkeypatch: pytest.MonkeyPatch):
    tried = install(monkeypatch, None)
    assert pass_kernels.triton_works(GPU)
    assert pass_kernels.triton_works(GPU)
    assert tried == [GPU], "once for each GPU"


def test_without_a_compiler_torchs_operations_are_used_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """An image of a container may have Triton, but no C compiler, which Triton calls."""
    install(monkeypatch, RuntimeError("Failed to find C compiler. Please specify\nmore"))
    with caplog.at_level(logging.WARNING):
        assert not pass_kernels.triton_works(GPU)
        assert not pass_kernels.triton_works(GPU)
    (record,) = caplog.records
    assert "fused_kernels: Triton makes no kernels here (Failed to find C compiler. Please specify)" in record.message


def test_without_triton_nothing_is_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    """It is not part of torch on each system."""
    monkeypatch.setattr(pass_kernels, "find_spec", lambda name: None)
    assert not pass_kernels.triton_works(GPU)
    assert not caplog.records
