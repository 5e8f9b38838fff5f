"""Groups that differ in seeds alone, and which of them is the best."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from safetensors.torch import save_file
from torch import zeros

from hv15.comparison.groups import Spread, TrainingComparison, spread
from hv15.comparison.trainings import ComparedTraining, read_training, read_trainings
from hv15.records.json_values import JsonObject
from hv15.records.metadata import MADE_FROM
from hv15.records.paths import ProjectPaths
from tests.comparison.made_up import STEPS, ablation, make_training


def compared(*places: ProjectPaths) -> TrainingComparison:
    return TrainingComparison(tuple(read_training(paths.run, paths) for paths in places))


def test_what_is_known_of_a_training(tmp_path: Path) -> None:
    found = read_training("one", make_training(tmp_path, losses=(0.5, None, 0.4, 0.45)))
    assert (found.steps, found.total_steps, found.is_finished) == (STEPS, STEPS, True)
    assert found.best is not None
    assert (found.best.step, found.best.loss) == (15, 0.4)
    assert found.last is not None
    assert found.last.loss == 0.45
    assert found.train_seconds == 2.0 * STEPS
    assert found.memory_peak == 2**34
    assert found.lora_bytes == 1024
    weights = [0.95 ** (STEPS - step) for step in range(1, STEPS + 1)]
    mean = sum(weight / step for step, weight in enumerate(weights, start=1)) / sum(weights)
    assert found.loss_last == pytest.approx(mean)
    assert (list(found.loss.steps)[-1], list(found.loss.values)[-1]) == (STEPS, pytest.approx(mean))


def test_a_training_that_has_not_begun_has_only_a_name(tmp_path: Path) -> None:
    found = read_training("new", ProjectPaths(tmp_path, "new"))
    assert (found.steps, found.settings, found.best, found.loss_last, found.lora_bytes) == (0, {}, None, None, None)


def test_damaged_lines_and_former_noise_levels_do_not_count(tmp_path: Path) -> None:
    paths = make_training(tmp_path, losses=(0.1, 0.2), sigmas=(0.5,) * 9)
    text = paths.metrics.read_text()
    (tmp_path / "other").mkdir()
    later = make_training(tmp_path / "other", losses=(0.7,)).metrics.read_text().splitlines()[-1]
    paths.metrics.write_text(text + later.replace('"step": 20', '"step": 30') + '\n{"kind": "step", "torn')
    found = read_training("one", paths)
    assert [each.loss for each in found.validations] == [0.7], "the others were measured at other levels"


def test_a_copied_lora_has_the_measurements_of_its_twin(tmp_path: Path) -> None:
    places = {name: make_training(tmp_path, name, seed=number) for number, name in enumerate(("one", "two"))}
    for name, number in (("one", 1), ("two", 2), ("copy", 2)):
        paths = places.setdefault(name, ProjectPaths(tmp_path, name))
        paths.trained.parent.mkdir(exist_ok=True)
        save_file({"a": zeros(1)}, paths.trained, {MADE_FROM: f'{{"seed": {number}}}'})
    found = {each.name: each for each in read_trainings(places, {"copy": {"sample.guidance_scale": 3}})}
    assert found["copy"].steps == STEPS
    assert found["copy"].seed == 1
    assert found["copy"].settings["sample.guidance_scale"] == 3
    assert "sample.guidance_scale" not in found["two"].settings


def test_seeds_are_repetitions(tmp_path: Path) -> None:
    found = compared(*ablation(tmp_path))
    assert found.differing == ("train.discrete_flow_shift",)
    assert [group.label for group in found.groups] == ["discrete_flow_shift 1", "discrete_flow_shift 3"]
    assert [len(group.trainings) for group in found.groups] == [3, 3]
    first = found.groups[0].validation
    assert first is not None
    assert first.mean == pytest.approx(0.42)
    assert first.deviation == pytest.approx(0.01), "of a sample: (n - 1) below the root"
    assert found.best_group is found.groups[0]
    assert found.best_training is found.trainings[0]
    assert found.varied == "train.discrete_flow_shift"
    assert found.groups[1].first.name == "shift-3_seed-1"
    assert not found.notes


def test_losses_at_other_noise_levels_make_nobody_the_best(tmp_path: Path) -> None:
    """By default each training is measured at its own levels, and less noise gives another loss for the same LoRA."""
    found = compared(
        make_training(tmp_path, "a", losses=(0.1,), sigmas=(0.3,) * 9, discrete_flow_shift=1.0),
        make_training(tmp_path, "b", losses=(0.2,), sigmas=(0.8,) * 9, discrete_flow_shift=7.0),
    )
    assert not found.is_comparable
    assert found.best_group is None
    assert found.best_training is None
    assert "noise_levels: even" in found.notes[0]


def test_losses_on_other_clips_make_nobody_the_best(tmp_path: Path) -> None:
    one, other = ({"fraction": part, "noise_levels": "even"} for part in (0.1, 0.2))
    found = compared(make_training(tmp_path, "a", validation=one), make_training(tmp_path, "b", validation=other))
    assert found.differing == ("train.validation.fraction",)
    assert not found.compares_groups


@pytest.mark.parametrize(("one", "other", "is_same"), [("a", "b", False), ("a", "a", True), ("a", "", True)])
def test_held_out_clips_of_other_content_make_nobody_the_best(
    tmp_path: Path, one: str, other: str, is_same: bool
) -> None:
    """The records tell the content; an older one tells nothing."""
    found = compared(
        make_training(tmp_path, "a", clips=one, network_dim=2), make_training(tmp_path, "b", clips=other, network_dim=4)
    )
    assert found.compares_groups == is_same
    assert any("not measured on the same clips" in note for note in found.notes) == (not is_same)


def test_the_same_clips_by_other_settings_can_be_compared(tmp_path: Path) -> None:
    one, other = ({"fraction": part, "noise_levels": "even"} for part in (0.1, 0.2))
    found = compared(
        make_training(tmp_path, "a", clips="x", validation=one),
        make_training(tmp_path, "b", clips="x", validation=other),
    )
    assert found.compares_groups


def test_a_training_that_is_not_finished_counts_in_no_mean(tmp_path: Path) -> None:
    """Its loss still falls, so it would make the mean of its group too high; here it is even the lowest of all."""
    found = compared(
        make_training(tmp_path, "a1", losses=(0.5,), seed=1),
        make_training(tmp_path, "a2", losses=(0.1,), seed=2, steps=10),
        make_training(tmp_path, "a3", losses=(0.7,), seed=3),
        make_training(tmp_path, "b1", losses=(0.65,), seed=1, network_dim=2),
        make_training(tmp_path, "c1", losses=(0.2,), seed=1, network_dim=4, steps=10),
    )
    first, _, third = found.groups
    assert first.validation == pytest.approx(Spread(0.6, math.sqrt(0.02), 2))
    assert [each.name for each in first.drawn] == ["a1", "a3"]
    assert (third.validation, third.drawn) == (None, third.trainings), "its curve is shown as far as it is"
    assert found.best_group is first
    assert found.best_training is not None
    assert found.best_training.name == "a1"
    assert "Not finished, so in no mean, and not the best: a2, c1." in found.notes


def test_the_same_training_counts_once(tmp_path: Path) -> None:
    """An experiment that differs in its samples alone has a copy of another one's training: it is no repetition."""
    one, copy = (make_training(tmp_path, name, losses=(0.2,), seed=1) for name in ("one", "copy"))
    found = compared(one, copy)
    assert (found.has_repetitions, found.groups[0].seeds) == (False, 1)
    found = compared(one, copy, make_training(tmp_path, "two", losses=(0.4,), seed=2))
    assert found.groups[0].validation == pytest.approx(Spread(0.3, math.sqrt(0.02), 2))


def test_while_none_is_finished_all_count(tmp_path: Path) -> None:
    found = compared(*(make_training(tmp_path, str(n), losses=(n / 10,), seed=n, steps=5 * n) for n in (1, 2)))
    assert found.groups[0].validation == pytest.approx(Spread(0.15, math.sqrt(0.005), 2))
    assert "None is finished, so the numbers are those so far: 1, 2." in found.notes


def test_of_equal_losses_none_is_the_best(tmp_path: Path) -> None:
    """Where validation only grows, the lowest loss of all is that of the base model, before the first step."""
    one, copy = (make_training(tmp_path, name, losses=(0.3, 0.4), seed=1, network_dim=2) for name in ("one", "copy"))
    found = compared(one, make_training(tmp_path, "two", losses=(0.3, 0.5), seed=1, network_dim=4))
    assert (found.best_group, found.best_training, found.compares_groups) == (None, None, True)
    found = compared(one, copy, make_training(tmp_path, "three", losses=(0.31,), seed=1, network_dim=4))
    assert (found.best_group, found.best_training) == (found.groups[0], found.trainings[0]), "the same training"


def test_a_single_training_is_no_best(tmp_path: Path) -> None:
    found = compared(make_training(tmp_path, "a"))
    assert found.best_group is None
    assert found.differing == ()
    assert found.groups[0].label == "a"


def test_what_a_reader_has_to_know_is_said(tmp_path: Path) -> None:
    found = compared(
        make_training(tmp_path, "done"), make_training(tmp_path, "half", steps=10), ProjectPaths(tmp_path, "new")
    )
    assert "Not finished, so in no mean, and not the best: half." in found.notes
    assert "Nothing measured: new." in found.notes
    assert [group.label for group in found.groups] == ["done, half", "new"]


def test_many_settings_are_no_name() -> None:
    trainings = [ComparedTraining(f"run{n}", {f"train.setting_{k}": n * k for k in range(1, 9)}) for n in (1, 2)]
    assert [group.label for group in TrainingComparison(tuple(trainings)).groups] == ["run1", "run2"]


def test_a_group_without_a_short_label_is_called_as_a_sweep_calls_it() -> None:
    settings: list[JsonObject] = [{f"train.setting_{k}": n * k for k in range(1, 9)} for n in (1, 2)]
    names = (("shift-1_seed-1", "shift-1_seed-23"), ("one", "two"))
    trainings = [
        ComparedTraining(name, {**own, "train.seed": seed})
        for own, group in zip(settings, names, strict=True)
        for seed, name in enumerate(group)
    ]
    assert [group.label for group in TrainingComparison(tuple(trainings)).groups] == ["shift-1", "one, two"]


def test_the_mean_and_the_deviation_of_a_sample() -> None:
    found = spread([1.0, None, 2.0, 4.0])
    assert found is not None
    assert found.mean == pytest.approx(7 / 3)
    assert found.deviation == pytest.approx(math.sqrt(7 / 3))
    assert found.repetitions == 3
    assert spread([2.0]) == Spread(2.0, None, 1)
    assert spread([None]) is None
