"""A training's state that was cut, flipped or forged is never trained on."""

from __future__ import annotations

from pathlib import Path

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hv15.train.state import Position, StateFolder
from tests.hostile.damage import damaged

POSITION = Position(6, 1.5, 600, "spec", 2)


@settings(max_examples=80, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), name=st.sampled_from(["state.json", "lora.safetensors", "optimizer.pt"]))
def test_it_is_whole_or_not_used(data: st.DataObject, name: str, tmp_path: Path) -> None:
    states = StateFolder(tmp_path / "state", "spec")
    folder = states.save(POSITION, {"up": torch.ones(2, 2)}, {"state": {0: {"m": torch.ones(3)}}})
    file = folder / name
    file.write_bytes(data.draw(damaged(file.read_bytes())))
    saved = states.load_latest()
    assert saved is None or (saved.position == POSITION and torch.equal(saved.lora["up"], torch.ones(2, 2)))
