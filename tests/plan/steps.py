"""Steps of a small transformer, and how they are metered on a CPU."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import pytest
import torch

from hv15.config import Settings
from hv15.memory import ELSEWHERE
from hv15.models.weights.transfers import HostTransfers
from hv15.plan.meter import Meter
from hv15.plan.metered_steps import PassSize
from tests.models.golden_dit import TINY

SMALL = replace(TINY, num_blocks=3, hidden_size=64, num_heads=2, rope_dims=(8, 12, 12))
SIZE = PassSize(samples=1, latent=(3, 6, 8), text_tokens=12, i2v=False)


def settings(train: dict[str, Any] | None = None, sample: dict[str, Any] | None = None) -> Settings:
    train = {"optimizer_type": "AdamW", "network_dim": 4, "network_alpha": 4, **(train or {})}
    content = {"models": {"source": "demo"}, "datasets": [{"video_directory": "clips"}], "train": train}
    return Settings.model_validate({**content, "sample": sample or {}})


def of_steps(meter: Meter) -> int:
    """The peak of all but building the model: quantising it on the CPU needs the plain weights for a moment."""
    return max(sum(parts.values()) for parts in meter.moments.values())


@pytest.fixture(scope="module", autouse=True)
def bitsandbytes_is_imported() -> None:
    """On some processors its import logs an error, whose traceback would hold tensors of the step that imports it."""
    importlib.import_module("bitsandbytes.functional")


@pytest.fixture(autouse=True)
def host_memory_is_elsewhere(monkeypatch: pytest.MonkeyPatch):
    """On the CPU one memory is host and device; what a GPU's step leaves on the host is not counted here."""
    take = HostTransfers.host_memory
    meters: list[Meter] = []
    start = Meter.__init__

    def host_memory(self: HostTransfers, size: int) -> torch.Tensor:
        with meters[-1].making(ELSEWHERE):
            return take(self, size)

    def init(self: Meter, *args: Any, **options: Any) -> None:
        start(self, *args, **options)
        meters.append(self)

    monkeypatch.setattr(Meter, "__init__", init)
    monkeypatch.setattr(HostTransfers, "host_memory", host_memory)
    monkeypatch.setattr("hv15.models.weights.offload.LEAST", 1024)
