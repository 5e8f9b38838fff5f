"""What is counted, said and refused about the numbers of steps."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hv15.errors import UserError
from hv15.records.metrics import SIGMA_BINS
from hv15.train.loop import Trainer
from hv15.train.spikes import DEVIATIONS, TIMES, WARM_UP, WINDOW, Usual
from hv15.train.watch import MOST_NAMED, Watch
from tests.records.steps import step_record
from tests.train.world import metrics, run, settings, spoil, untimed


@pytest.fixture(autouse=True)
def no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hv15.train.metadata.git_commit", lambda: None)


def watch(most: int = 3, total: int = 100) -> Watch:
    return Watch(total, most)


def test_bad_steps_are_counted_in_all_and_in_a_row() -> None:
    ours = watch()
    found = [ours.count(loss, norm) for loss, norm in [(1, 1), (math.nan, 1), (1, math.inf), (1, 1), (math.inf, 1)]]
    assert found == [True, False, False, True, False]
    assert (ours.skipped, ours.in_a_row) == (3, 1)


@pytest.mark.parametrize(
    ("bad", "step", "total", "ends"),
    [
        (2, 50, 100, False),
        (3, 50, 100, True),
        (1, 100, 100, False),
        (2, 100, 100, True),  # nothing shows that the LoRA is still sound
        (1, 1, 1, True),
    ],
)
def test_too_many_in_a_row_end_the_training(bad: int, step: int, total: int, ends: bool) -> None:
    ours = watch(total=total)
    for _ in range(bad):
        ours.count(math.nan, 1.0)
    assert ours.gives_up(step) is ends


def test_the_clips_are_named_once_and_not_all_of_many() -> None:
    names = [f"{number}.mp4" for number in range(MOST_NAMED + 3)]
    (said,) = watch().warnings(5, math.nan, 2.0, [*names, names[0], ""])
    assert said.step == 5
    assert said.skipped
    assert said.message.startswith("the loss is nan and the gradient norm 2, so the step was skipped (clips: 0.mp4, ")
    assert said.message.endswith("7.mp4 and 3 more)")
    assert said.clips == (*names, names[0], "")
    (unnamed,) = watch().warnings(5, math.nan, 2.0, [""])
    assert unnamed.message.endswith("was skipped")


def test_normal_numbers_are_no_spikes_and_large_ones_are() -> None:
    """Logarithms of a normal distribution, for which the deviations are exact in the limit."""
    usual, draws = Usual(), torch.Generator().manual_seed(0)
    values = torch.randn(2000, generator=draws).mul(0.5).exp().tolist()
    assert [usual.judge(value) for value in values] == [None] * len(values)
    last = [math.log(value) for value in values[-WINDOW:]]
    centre, spread = statistics.median(last), 0.5  # of the distribution; that of the sample is a little off
    assert usual.judge(math.exp(centre + 0.8 * DEVIATIONS * spread)) is None
    assert usual.judge(math.exp(centre + 1.2 * DEVIATIONS * spread)) == pytest.approx(math.exp(centre), rel=0.05)


def test_only_the_first_of_several_spikes_is_said() -> None:
    usual = Usual()
    found = [usual.judge(value) for value in [*[1.0] * WARM_UP, 2 * TIMES, 2 * TIMES, 1.0, 2 * TIMES]]
    assert found == [None] * WARM_UP + [pytest.approx(1.0), None, None, pytest.approx(1.0)]


def test_nothing_is_said_before_what_is_usual_is_known() -> None:
    usual = Usual()
    assert [usual.judge(value) for value in [*[1.0] * (WARM_UP - 1), 1000.0, 0.0]] == [None] * (WARM_UP + 1)


def test_a_spike_names_its_number_its_size_and_its_clips() -> None:
    ours = watch()
    ours.recall(step_record(n, loss=0.2, grad_norm=None if n == 3 else 0.5) for n in range(1, WARM_UP + 2))
    loss, norm = ours.warnings(99, 2.0, 50.0, ["a.mp4"])
    assert loss.message == "the loss is 2, 10 times the usual 0.2 (clips: a.mp4)"
    assert norm.message == "the gradient norm is 50, 100 times the usual 0.5 (clips: a.mp4)"
    assert norm.clips == ("a.mp4",)


def test_a_bad_step_changes_nothing_and_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A last step that is bad leaves the LoRA of the step before, which is kept as a checkpoint."""
    spoil(monkeypatch, 2, 5)
    output = run(tmp_path, settings(max_train_steps=5, save_every_n_steps=4))
    before, after = load_file(tmp_path / "train" / "checkpoints" / "lora-step000004.safetensors"), load_file(output)
    assert all(torch.equal(before[name], after[name]) for name in before)
    records = metrics(tmp_path)
    assert [record["skipped_steps"] for record in records] == [0, 1, 1, 1, 2]
    assert [record["step"] for record in records if record["loss"] is None] == [2, 5]
    assert records[1]["grad_norm"] is None
    assert records[1]["loss_by_sigma"] == [None] * SIGMA_BINS
    said = metrics(tmp_path, "warning")
    assert [record["step"] for record in said] == [2, 5]
    assert all(len(record["clips"]) == 2 and record["clips"][0].endswith(".mp4") for record in said)


def test_an_infinite_gradient_is_bad_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, 2, factor=1e25)  # its square is beyond fp32
    run(tmp_path, settings(max_train_steps=3))
    assert [record["skipped_steps"] for record in metrics(tmp_path)] == [0, 1, 1]


def test_too_many_bad_steps_save_the_state_and_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it is started again, it goes on: the result is that of a training with more patience."""
    config = settings(max_train_steps=8, max_bad_steps=2)
    with monkeypatch.context() as patch:
        spoil(patch, 3, 4)
        with pytest.raises(UserError, match="steps 3 to 4: the loss or the gradient is not a finite number") as caught:
            run(tmp_path / "ended", config)
    assert "learning_rate" in (caught.value.hint or "")
    assert not (tmp_path / "ended" / "lora.safetensors").exists()
    assert [path.name for path in (tmp_path / "ended" / "train" / "state").iterdir()] == ["step-000004"]
    resumed = run(tmp_path / "ended", config)
    with monkeypatch.context() as patch:
        spoil(patch, 3, 4)
        patient = run(tmp_path / "patient", settings(max_train_steps=8, max_bad_steps=3), spec={"the": "same"})
    assert all(torch.equal(a, b) for a, b in zip(load_file(resumed).values(), load_file(patient).values(), strict=True))
    assert [record["skipped_steps"] for record in metrics(tmp_path / "ended")] == [0, 0, 1, 2, 2, 2, 2, 2]


def test_a_training_that_ends_in_bad_steps_gives_no_lora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = settings(max_train_steps=4)
    with monkeypatch.context() as patch:
        spoil(patch, 3, 4)
        with pytest.raises(UserError, match="steps 3 to 4"):
            run(tmp_path, config)
    with pytest.raises(UserError, match="steps 3 to 4"):  # all steps are done
        run(tmp_path, config)
    assert not (tmp_path / "lora.safetensors").exists()


@pytest.mark.parametrize("behind", [0, 1])
def test_the_end_comes_a_step_later_where_numbers_are_read_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behind: int
) -> None:
    monkeypatch.setattr(Trainer, "read_behind", behind)
    spoil(monkeypatch, 3)
    with pytest.raises(UserError, match="step 3: "):
        run(tmp_path, settings(max_train_steps=8, max_bad_steps=1))
    assert [path.name for path in (tmp_path / "train" / "state").iterdir()] == [f"step-{3 + behind:06d}"]


@pytest.mark.slow
def test_what_is_usual_is_known_after_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same warnings at the same steps, though half of what is usual was measured before the end of the process."""
    monkeypatch.setattr("hv15.train.spikes.WARM_UP", 4)
    monkeypatch.setattr("hv15.train.spikes.DEVIATIONS", 0.5)
    monkeypatch.setattr("hv15.train.spikes.TIMES", 1.1)
    options: dict[str, Any] = {"max_train_steps": 12, "state_every_n_steps": 5, "network_dim": 1}
    run(tmp_path / "straight", settings(**options))
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_queue", _interrupted_at(7))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "resumed", settings(**options))
    run(tmp_path / "resumed", settings(**options))
    said = [untimed(metrics(tmp_path / name, "warning")) for name in ("straight", "resumed")]
    assert said[0] == said[1] != []


def _interrupted_at(step: int) -> Any:
    real = Trainer._queue

    def queue(trainer: Trainer, number: int, *rest: Any) -> Any:
        if number == step:
            raise KeyboardInterrupt
        return real(trainer, number, *rest)

    return queue
