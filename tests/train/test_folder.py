"""Whose folder it is, what is kept beside it, and that no interruption loses anything."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from hv15.errors import UserError
from hv15.records.metadata import STEPS
from hv15.records.training import TrainingRecord, known_record, state_folders
from hv15.train import folder as folder_module
from hv15.train import origin as origin_module
from hv15.train.folder import Choice, choose, claim_folder, furthest
from hv15.train.origin import Origin, origin_of_lora, origin_of_state
from hv15.train.state import Position, StateFolder
from tests.workflow.stub_hv15 import write_safetensors

FIRST, SECOND = TrainingRecord({"train": {"seed": 1}}, {}), TrainingRecord({"train": {"seed": 2}}, {})
ASIDE = f"train-{FIRST.digest[:8]}"


def begun(origin: Origin, config: str = "") -> TrainingRecord:
    """A training that starts from an origin."""
    return TrainingRecord({"train": {"seed": 3, "continue_from": origin.to_json()}}, {"of": config})


@pytest.fixture
def training(tmp_path: Path) -> Path:
    return tmp_path / "results" / "train"


def train(training: Path, record: TrainingRecord, *steps: int) -> None:
    """Write the states of steps, each with a line of metrics and a checkpoint before it."""
    (training / "checkpoints").mkdir(exist_ok=True)
    for step in steps:
        copy = f"checkpoints/lora-step{step:06d}.safetensors"
        write_safetensors(training / copy, {"step": str(step)})
        with (training / "metrics.jsonl").open("a") as metrics:
            metrics.write(json.dumps({"kind": "checkpoint", "step": step, "path": copy}) + "\n")
            offset = metrics.tell()
        position = Position(step, step / 4, offset, record.digest, 1, samples=2 * step)
        StateFolder(training / "state", record.digest).save(
            position, {"up": torch.full((2,), float(step))}, {"m": step}
        )


def steps_in(folder: Path) -> list[int]:
    return sorted(int(state.name[5:]) for state in state_folders(folder / "state"))


def everything(results: Path) -> dict[str, list[int]]:
    """The trainings by their folder, with the steps of their states."""
    return {path.name: steps_in(path) for path in sorted(results.iterdir())}


# -- another training -----------------------------------------------------------------------------------------------


def test_another_training_moves_the_folder_aside_and_its_return_brings_it_back(
    training: Path, caplog: pytest.LogCaptureFixture
) -> None:
    claim_folder(training, FIRST, 9)
    train(training, FIRST, 5)
    claim_folder(training, FIRST, 9)
    assert everything(training.parent) == {"train": [5]}
    with caplog.at_level(logging.WARNING):
        claim_folder(training, SECOND, 9)
    assert "moved to" in caplog.text
    assert everything(training.parent) == {"train": [], ASIDE: [5]}
    claim_folder(training, FIRST, 9)
    assert everything(training.parent) == {"train": [5], f"train-{SECOND.digest[:8]}": []}


def test_a_folder_that_stands_aside_is_never_replaced(training: Path) -> None:
    for step in (5, 6, 7):
        claim_folder(training, FIRST, 9)
        for state in state_folders(training / "state"):
            state.rename(training.parent.parent / f"elsewhere-{step}")
        train(training, FIRST, step)
        (training.parent / ASIDE).mkdir(exist_ok=True)  # somebody else's, without a record
        claim_folder(training, SECOND, 9)
    assert everything(training.parent) == {"train": [], ASIDE: [], f"{ASIDE}-2": [7]}


def test_files_of_others_are_not_moved(training: Path) -> None:
    training.mkdir(parents=True)
    (training / "thesis.txt").touch()
    with pytest.raises(UserError, match=r"holds other files \(first thesis\.txt\)"):
        claim_folder(training, FIRST, 9)


def test_a_folder_without_a_record_is_taken_as_it_is(training: Path) -> None:
    (training / "state").mkdir(parents=True)
    claim_folder(training, FIRST, 9)
    assert known_record(training) == FIRST


def test_states_tell_too_whose_they_are(training: Path) -> None:
    """When the record was lost: else a state beyond the wanted length would be taken for its end."""
    claim_folder(training, FIRST, 8)
    train(training, FIRST, 4, 8)
    (training / "run.json").write_text("{")
    claim_folder(training, FIRST, 5)
    assert everything(training.parent) == {"train": [4], ASIDE: [4, 8]}
    (training / "run.json").unlink()
    claim_folder(training, SECOND, 5)
    assert everything(training.parent) == {"train": [], ASIDE: [4, 8], f"{ASIDE}-2": [4]}


# -- other lengths --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "choice"),
    [(None, (8, True)), (12, (8, True)), (8, (8, True)), (7, (4, False)), (4, (4, False)), (3, (0, True))],
)
def test_the_furthest_state_that_fits_is_used(training: Path, total: int | None, choice: tuple[int, bool]) -> None:
    claim_folder(training, FIRST, 8)
    train(training, FIRST, 4, 8)
    found = choose(training, FIRST.digest, total)
    assert (found.step, found.whole) == choice
    assert found.source == (training if found.step else None)
    assert choose(training, SECOND.digest, total) == Choice()


def test_a_shorter_length_takes_a_state_and_leaves_the_longer_training_whole(training: Path) -> None:
    claim_folder(training, FIRST, 8)
    train(training, FIRST, 4, 8)
    (training / "dataset.json").write_text("the clips")
    (training / "summary.json").write_text("of 8 steps")
    before = {path.relative_to(training): path.read_bytes() for path in training.rglob("*") if path.is_file()}
    claim_folder(training, FIRST, 7)
    assert everything(training.parent) == {"train": [4], ASIDE: [4, 8]}
    aside = training.parent / ASIDE
    assert {path.relative_to(aside): path.read_bytes() for path in aside.rglob("*") if path.is_file()} == before
    names = {str(path.relative_to(training)) for path in training.rglob("*") if path.is_file()}
    state = {f"state/step-000004/{name}" for name in ("lora.safetensors", "optimizer.pt", "state.json")}
    assert names == {*state, "run.json", "metrics.jsonl", "dataset.json", "checkpoints/lora-step000004.safetensors"}
    assert (training / "metrics.jsonl").read_bytes() == before[Path("metrics.jsonl")].splitlines(keepends=True)[0]
    saved = StateFolder(training / "state", FIRST.digest).load_latest()
    assert saved is not None
    assert saved.position.step == 4


@pytest.mark.parametrize("step", [3, 5])
def test_a_shorter_length_takes_the_best_one_that_is_not_beyond_its_state(training: Path, step: int) -> None:
    claim_folder(training, FIRST, 8)
    train(training, FIRST, 4, 8)
    files = {"checkpoints/best.safetensors", "checkpoints/best.ema.safetensors"}
    for name in files:
        write_safetensors(training / name, {STEPS: str(step)})
    claim_folder(training, FIRST, 7)
    assert {name for name in files if (training / name).exists()} == (files if step < 4 else set())


def test_back_and_forth_between_lengths(training: Path) -> None:
    claim_folder(training, FIRST, 8)
    train(training, FIRST, 8)
    claim_folder(training, FIRST, 3)  # no state is before it
    train(training, FIRST, 3)
    assert everything(training.parent) == {"train": [3], ASIDE: [8]}
    claim_folder(training, FIRST, 8)
    assert everything(training.parent) == {"train": [8], f"{ASIDE}-2": [3]}
    claim_folder(training, FIRST, 3)
    assert everything(training.parent) == {"train": [3], ASIDE: [8]}
    claim_folder(training, FIRST, 5)
    train(training, FIRST, 5)
    assert everything(training.parent) == {"train": [3, 5], ASIDE: [8]}
    claim_folder(training, FIRST, 20)
    assert furthest(training) == 8


def test_a_damaged_state_is_not_taken(training: Path) -> None:
    claim_folder(training, FIRST, 8)
    train(training, FIRST, 4, 8)
    (training / "state/step-000004/state.json").write_text("{}")
    assert choose(training, FIRST.digest, 7) == Choice()


def test_a_metrics_file_names_nothing_outside(training: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of somebody")
    claim_folder(training, FIRST, 8)
    lines = [{"path": str(tmp_path / "secret")}, {"path": "../../secret"}, {"path": 5}, {"path": "state"}]
    (training / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '"path"\n')
    train(training, FIRST, 4, 8)
    claim_folder(training, FIRST, 5)
    assert sorted(path.name for path in training.iterdir()) == ["checkpoints", "metrics.jsonl", "run.json", "state"]


# -- an origin ------------------------------------------------------------------------------------------------------


@pytest.fixture
def state(training: Path) -> Path:
    """A state after 8 steps of the first training."""
    claim_folder(training, FIRST, 8)
    train(training, FIRST, 4, 8)
    return training / "state/step-000008"


def test_an_origin_is_kept_without_the_other_folder(training: Path, state: Path) -> None:
    origin = origin_of_state(state)
    assert (origin.step, origin.samples) == (8, 16)
    claim_folder(training, begun(origin), 12)
    assert everything(training.parent) == {"train": [], ASIDE: [4, 8]}
    kept = training / "origin"
    assert origin_of_state(kept) == origin
    assert known_record(kept) == FIRST
    record = known_record(training)
    assert record is not None
    assert record.segments == ({"from_step": 0, "to_step": 8, "config": {}, "made_from": FIRST.past},)
    (training.parent / ASIDE).rename(training.parent.parent / "gone")
    claim_folder(training, begun(origin), 16)
    assert origin_of_state(kept) == origin


def test_equal_states_are_equal_origins(training: Path, state: Path, tmp_path: Path) -> None:
    """Whatever the lengths of the lines of metrics, which hold times."""
    other = tmp_path / "other" / "train"
    claim_folder(other, FIRST, 8)
    (other / "metrics.jsonl").write_text("a longer line\n")
    train(other, FIRST, 8)
    assert origin_of_state(other / "state/step-000008") == origin_of_state(state)
    train(other, FIRST, 9)
    assert origin_of_state(other / "state/step-000009") != origin_of_state(state)


def test_an_origin_of_an_origin_keeps_all_segments(training: Path, state: Path) -> None:
    first = begun(origin_of_state(state), "first")
    claim_folder(training, first, 12)
    train(training, first, 12)
    origin = origin_of_state(training / "state/step-000012")
    claim_folder(training, begun(origin), 16)
    record = known_record(training)
    assert record is not None
    assert [(each["from_step"], each["to_step"], each["config"]) for each in record.segments] == [
        (0, 8, {}),
        (8, 12, {"of": "first"}),
    ]


def test_a_lora_is_copied(training: Path, tmp_path: Path) -> None:
    told = {"hv15.config": '{"a": 1}', "hv15.made_from": '{"b": 2}', "hv15.steps": "5"}
    write_safetensors(tmp_path / "mine.safetensors", told)
    origin = origin_of_lora(tmp_path / "mine.safetensors")
    claim_folder(training, begun(origin), 4, named=tmp_path / "mine.safetensors")
    (tmp_path / "mine.safetensors").write_bytes(b"another")
    claim_folder(training, begun(origin), 5, named=tmp_path / "mine.safetensors")
    assert origin_of_lora(training / "origin/lora.safetensors") == origin
    record = known_record(training)
    assert record is not None
    assert record.segments == ({"from_step": 0, "to_step": 5, "config": {"a": 1}, "made_from": {"b": 2}},)


def test_a_checkpoint_of_the_training_that_makes_room(training: Path, state: Path) -> None:
    named = training / "checkpoints/lora-step000004.safetensors"
    origin = origin_of_lora(named)
    claim_folder(training, begun(origin), 4, named=named)
    assert origin_of_lora(training / "origin/lora.safetensors") == origin


def test_a_damaged_origin_is_taken_from_elsewhere(training: Path, state: Path, tmp_path: Path) -> None:
    origin, elsewhere = origin_of_state(state), tmp_path / "copy"
    elsewhere.mkdir()
    for file in state.iterdir():
        (elsewhere / file.name).write_bytes(file.read_bytes())
    torn = state / "optimizer.pt"
    torn.write_bytes(torn.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"the state \w{8} after step 8 is not there any more"):
        claim_folder(training, begun(origin), 12)
    assert everything(training.parent) == {"train": [4, 8]}, "nothing was moved"
    claim_folder(training, begun(origin), 12, named=elsewhere)
    assert origin_of_state(training / "origin") == origin
    record = known_record(training)
    assert record is not None
    assert record.segments == ({"from_step": 0, "to_step": 8},), "nobody knows how a state by itself was trained"


# -- interruptions --------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def killed_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Ends the process before the n-th change of a file or folder, if it comes to that."""
    left = [0]

    def last(change: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*args: object, **options: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return change(*args, **options)

        return wrapped

    for owner, name in (
        (Path, "rename"),
        (Path, "replace"),
        (Path, "mkdir"),
        (os, "link"),
        (origin_module, "copy_file"),
        (folder_module, "copy_file"),
        (folder_module.shutil, "rmtree"),
    ):
        monkeypatch.setattr(owner, name, last(getattr(owner, name)))
    yield lambda number: left.__setitem__(0, number)
    left[0] = 0


def interrupted(killed_at: Callable[[int], None], number: int, claim: Callable[[], None]) -> bool:
    """Whether a call was ended before its n-th change; then it is called again."""
    killed_at(number)
    try:
        claim()
    except Killed:
        killed_at(0)
        claim()
        return True
    killed_at(0)
    return False


@pytest.mark.parametrize("case", ["another", "back", "shorter", "longer again", "from a state", "from a lora"])
def test_an_interruption_at_any_moment_repairs_itself(
    case: str, state: Path, training: Path, killed_at: Callable[[int], None]
) -> None:
    record, total, copy = FIRST, 8, Path("train/checkpoints/lora-step000004.safetensors")
    match case:
        case "another":
            record = SECOND
        case "back":
            claim_folder(training, SECOND, 8)
            train(training, SECOND, 3)
        case "shorter":
            total = 5
        case "longer again":
            claim_folder(training, FIRST, 5)
        case "from a state":
            record, total = begun(origin_of_state(state)), 12
        case "from a lora":
            record = begun(origin_of_lora(training.parent / copy))
    before, ends = training.parent, list[set[str]]()
    while True:
        results = before.with_name(f"{len(ends)}")
        shutil.copytree(before, results)
        claim = partial(claim_folder, results / "train", record, total, named=results / copy)
        was_interrupted = interrupted(killed_at, len(ends) + 1, claim)
        assert known_record(results / "train") is not None
        assert not list(results.rglob("*.tmp*"))
        ends.append({name.partition("-")[0] + str(steps) for name, steps in everything(results).items()})
        if not was_interrupted:
            break
    assert len(ends) > 3
    assert all(end == ends[-1] for end in ends), ends
