"""States on disk: complete or absent, of one spec, the last two."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hv15.errors import UserError
from hv15.train.state import Position, StateFolder, locked


def save(folder: StateFolder, step: int) -> Path:
    lora = {"up": torch.full((2, 2), float(step))}
    return folder.save(Position(step, step / 4, 100 * step, folder.spec, 2), lora, {"state": {0: {"m": torch.ones(3)}}})


def test_the_newest_comes_back_and_two_are_kept(tmp_path: Path) -> None:
    states = StateFolder(tmp_path / "state", "spec")
    assert states.load_latest() is None
    for step in (5, 10, 1000005):
        save(states, step)
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["step-000010", "step-1000005"]
    saved = states.load_latest()
    assert saved is not None
    assert saved.position == Position(1000005, 1000005 / 4, 100000500, "spec", 2)
    assert torch.equal(saved.lora["up"], torch.full((2, 2), 1000005.0))
    assert torch.equal(saved.optimizer["state"][0]["m"], torch.ones(3))


@pytest.mark.parametrize("name", ["lora.safetensors", "optimizer.pt", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_a_damaged_state_is_skipped_with_a_warning(
    tmp_path: Path, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    states = StateFolder(tmp_path / "state", "spec")
    save(states, 5)
    file = save(states, 10) / name
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 0xFF
    file.write_bytes(content[: len(content) // 2] if damage == "cut" else content)
    if damage == "gone":
        file.unlink()
    saved = states.load_latest()
    assert saved is not None
    assert saved.position.step == 5
    assert "step-000010: cannot be used" in caplog.text


def test_an_average_is_kept_and_checked(tmp_path: Path) -> None:
    states = StateFolder(tmp_path, "spec")
    position = Position(3, 0.5, 0, "spec", 1, averaged_steps=2)
    folder = states.save(position, {"up": torch.ones(2)}, {}, {"up": torch.zeros(2)})
    saved = states.load_latest()
    assert saved is not None
    assert saved.average is not None
    assert torch.equal(saved.average["up"], torch.zeros(2))
    assert saved.position.averaged_steps == 2
    file = folder / "average.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    assert states.load_latest() is None


def test_a_flipped_bit_in_each_byte_of_the_state_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of what state.json says; one that only changes its layout changes nothing. `"step": 6` is one bit from 7."""
    states = StateFolder(tmp_path / "state", "spec")
    file = save(states, 6) / "state.json"
    whole = file.read_bytes()
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= (1, 2, 32)[place % 3]
        file.write_bytes(flipped)
        saved = states.load_latest()
        assert saved is None or saved.position == Position(6, 1.5, 600, "spec", 2), place
    file.write_bytes(whole.replace(b'"step": 6', b'"step": 7'))
    caplog.clear()
    assert states.load_latest() is None
    assert "state.json is damaged" in caplog.text


def test_saving_the_same_step_again_replaces_it(tmp_path: Path) -> None:
    states = StateFolder(tmp_path / "state", "spec")
    save(states, 5)
    (save(states, 10) / "optimizer.pt").write_bytes(b"")
    save(states, 10)
    saved = states.load_latest()
    assert saved is not None
    assert saved.position.step == 10


def test_a_full_disk_leaves_earlier_states_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = StateFolder(tmp_path / "state", "spec")
    save(states, 5)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"step-000010.*No space left"):
        save(states, 10)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["step-000005"]


def test_a_state_that_a_kill_left_unfinished_is_not_seen(tmp_path: Path) -> None:
    states = StateFolder(tmp_path / "state", "spec")
    (save(states, 5)).rename(tmp_path / "state" / ".step-000007.tmp")
    assert states.load_latest() is None
    save(states, 7)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["step-000007"]


def test_a_pickle_with_code_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    states = StateFolder(tmp_path / "state", "spec")
    states.save(Position(5, 0, 0, "spec", 1), {"up": torch.ones(1)}, {"state": Evil()})
    assert states.load_latest() is None
    assert not (tmp_path / "ran").exists()


def test_a_state_of_another_spec_is_never_loaded(tmp_path: Path) -> None:
    save(StateFolder(tmp_path, "old"), 5)
    assert StateFolder(tmp_path, "new").load_latest() is None


def test_two_trainings_cannot_share_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    with locked(folder), pytest.raises(UserError, match="another training is running"), locked(folder):
        pass
    with locked(tmp_path / "train"):
        pass
