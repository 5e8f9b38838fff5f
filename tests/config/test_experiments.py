"""`experiments:` and `sweep:`: which experiments a config has, their names and settings, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from hv15.config import load_config
from hv15.config.experiments import LONGEST, MOST
from hv15.config.load import ConfigSource
from hv15.errors import UserError
from hv15.records.paths import ProjectPaths
from hv15.records.result_names import is_result_name
from tests.config.conftest import BASE, Problems


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def config(text: str, overrides: dict[str, Any] | None = None) -> ConfigSource:
        Path("config.yaml").write_text(BASE + text)
        return ConfigSource(Path("config.yaml"), overrides)

    return config


def names(file: ConfigSource) -> list[str]:
    return list(file.experiments)


def test_dotted_names_and_sections_mean_the_same(config: Any) -> None:
    file = config(
        "experiments:\n  a: {train.network_dim: 8, train.seed: 3}\n  b:\n    train: {network_dim: 8, seed: 3}\n  c:\n"
    )
    a, b, c = map(file.settings, "abc")
    assert a.train == b.train
    assert (a.train.network_dim, a.train.seed) == (8, 3)
    assert a.dump() == b.dump()
    assert c.dump() == file.settings().dump()
    assert file.experiments["b"].values == {"train.network_dim": 8, "train.seed": 3}


def test_an_experiment_wins_over_the_command_line_which_wins_over_the_file(config: Any) -> None:
    file = config(
        "train: {network_dim: 4, seed: 5}\nexperiments: {a: {train.network_dim: 8}}\n",
        {"train": {"network_dim": 16, "seed": 6}},
    )
    assert (file.settings().train.network_dim, file.settings("a").train.network_dim) == (16, 8)
    assert file.settings("a").train.seed == 6


def test_lists_are_replaced_mappings_merged_and_entries_changed_in_place(config: Any) -> None:
    file = config(
        "train: {optimizer_args: {eps: 1.0e-6}}\n"
        "sample: {prompts: [{name: one, prompt: a}, {name: two, prompt: b}]}\n"
        "experiments:\n"
        "  merged: {train.optimizer_args: {weight_decay: 0.1}}\n"
        "  replaced: {sample.prompts: [{name: three, prompt: c}]}\n"
        "  changed: {'sample.prompts[1].seed': 7, 'datasets[0].num_repeats': 2}\n"
    )
    assert file.settings("merged").train.optimizer_args == {"eps": 1e-6, "weight_decay": 0.1}
    assert [prompt.name for prompt in file.settings("replaced").sample.prompts] == ["three"]
    changed = file.settings("changed")
    assert [prompt.seed for prompt in changed.sample.prompts] == [None, 7]
    assert changed.datasets[0].num_repeats == 2
    assert file.settings().datasets[0].num_repeats == 1, "the base config stays what it is"


def test_a_dump_has_no_experiments_so_that_it_replays_one_training(config: Any) -> None:
    file = config("experiments: {a: {train.seed: 3}}\nsweep: {seeds: [1, 2]}\n")
    for name in ("", *file.experiments):
        assert not {"experiments", "sweep"} & file.settings(name).dump().keys()
    dumped = file.settings("a").dump()
    assert dumped["train"]["seed"] == 3  # type: ignore[index,call-overload]  # JSON


# -- sweeps ---------------------------------------------------------------------------------------------------------


def test_a_grid_makes_every_combination_with_every_entry_and_seed(config: Any) -> None:
    file = config(
        "sweep:\n"
        "  grid: {train.network_dim: [4, 8], train.discrete_flow_shift: [1, 3.0]}\n"
        "  list: [{train.learning_rate: 1e-5}, {name: fast, train.learning_rate: 2e-4, train.weight_decay: 0.1}]\n"
        "  seeds: [1, 2]\n".replace(", train.weight_decay: 0.1", ", train.max_grad_norm: 2")
    )
    found = names(file)
    assert len(found) == 16
    assert found[0] == "network_dim-4_discrete_flow_shift-1_learning_rate-1e-5_seed-1"
    assert found[3] == "network_dim-4_discrete_flow_shift-1_fast_seed-2"
    assert found[-1] == "network_dim-8_discrete_flow_shift-3_fast_seed-2"
    last = file.settings(found[-1]).train
    assert (last.network_dim, last.discrete_flow_shift, last.learning_rate, last.seed) == (8, 3.0, 2e-4, 2)


def test_another_value_leaves_the_other_names_as_they_are(config: Any) -> None:
    before = names(config("sweep: {grid: {train.network_dim: [4]}, seeds: [1]}\n"))
    after = names(config("sweep: {grid: {train.network_dim: [2, 4]}, seeds: [3, 1]}\n"))
    assert before == ["network_dim-4_seed-1"]
    assert set(before) < set(after)


def test_settings_that_end_alike_are_named_in_full(config: Any) -> None:
    file = config("sweep: {grid: {train.seed: [1], sample.seed: [2, 3]}}\n")
    assert names(file) == ["train.seed-1_sample.seed-2", "train.seed-1_sample.seed-3"]


@pytest.mark.parametrize(
    ("setting", "values", "words"),
    [
        ("train.learning_rate", "[1e-4, 0.00001, 3.0]", ["0.0001", "1e-5", "3"]),
        ("train.gradient_checkpointing", "[true, false]", ["true", "false"]),
        ("train.optimizer_type", "[AdamW, torch.optim.Adagrad]", ["AdamW", "torch.optim.Adagrad"]),
        ("sample.video_size", "[[480, 848], [720, 1280]]", ["480x848", "720x1280"]),
        ("train.publish_step", "[null, 400]", ["unset", "400"]),
    ],
)
def test_values_are_readable_in_names(config: Any, setting: str, values: str, words: list[str]) -> None:
    found = names(config(f"sweep: {{grid: {{{setting}: {values}}}}}\n"))
    assert found == [f"{setting.rpartition('.')[2]}-{word}" for word in words]


def test_texts_that_fit_no_file_name_stay_apart(config: Any) -> None:
    found = names(config("sweep: {grid: {train.network_weights: [a/b.safetensors, a-b.safetensors, '../x y', '*']}}\n"))
    assert len(set(found)) == 4
    assert all(re.fullmatch(r"network_weights-[\w.-]+", name) for name in found)


def test_long_names_are_cut_and_stay_apart(config: Any) -> None:
    settings = (
        "learning_rate",
        "discrete_flow_shift",
        "network_dim",
        "network_alpha",
        "max_grad_norm",
        "lr_warmup_steps",
    )
    grid = ", ".join(f"train.{name}: [{1.23456789 if '_' in name else 1}, 2]" for name in settings[:2])
    grid += "".join(f", train.{name}: [11, 12]" for name in settings[2:])
    found = names(config(f"sweep: {{grid: {{{grid}}}, seeds: [1]}}\n"))
    assert len(set(found)) == 64
    assert max(map(len, found)) == LONGEST


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "experiments: {a: {train.learning_rat: 1}}",
            "config.yaml:3:19 experiments.a.train.learning_rat: unknown key; did you mean 'learning_rate'?",
        ),
        (
            "experiments:\n  a:\n    train: {network_dim: many}",
            "config.yaml:5:26 experiments.a.train.network_dim: found 'many', expected a whole number",
        ),
        (
            "experiments: {a: {trian.seed: 1}}",
            "config.yaml:3:19 experiments.a.trian.seed: unknown key; did you mean 'train'?",
        ),
        (
            "experiments: {a: {train.max_train_epochs: 2, train.max_train_steps: 9}}",
            "config.yaml:3:43 experiments.a.train.max_train_epochs: max_train_steps is also set: keep one of them",
        ),
        (
            "experiments: {a: {train.min_timestep: 999}, b: {train.max_timestep: 0.5, train.min_timestep: 7}}",
            "config.yaml:3:94 experiments.b.train.min_timestep: found 7, expected less than max_timestep (0.5)",
        ),
        (
            "sweep: {grid: {train.network_dim: [4, x], train.seed: [1, 2]}}",
            "config.yaml:3:39 sweep.grid.train.network_dim[1]: found 'x', expected a whole number",
        ),
        (
            "sweep: {grid: {train.weight: [4, 8, 9]}}",
            "config.yaml:3:16 sweep.grid.train.weight: unknown key; did you mean 'base_weights'?",
        ),
        (
            "experiments: {a: {'sample.prompts[0].seed': 1}}",
            "config.yaml:3:45 experiments.a.sample.prompts[0].seed: there is no entry [0]: "
            "the list that the config has there has 0 entries",
        ),
    ],
)
def test_wrong_settings_are_named_with_their_place(config: Any, text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        config(text).check_experiments()
    assert str(caught.value).splitlines()[0] == said
    assert str(caught.value).count("config.yaml:") == 1, "a value of a sweep is reported once"


def test_all_mistakes_are_told_at_once(problems: Problems) -> None:
    """Those of the config itself, of the sweep's form, of names, and of values, each once, in the order of the file."""
    found = problems(
        "train: {network_dim: x}\n"
        "experiments:\n"
        "  a: {train.learning_rate: fast, runtime.device: cpu}\n"
        "  b/c: {train.seed: -1}\n"
        "  d: {'train.0': 3}\n"
        "  e: 5\n"
        "  f: {train.seed: 1, sample.infer_steps: 4}\n"
        "  g: {'': 3, '[0]': 4, '.': 5, train.max_train_steps: few}\n"
        "sweep:\n"
        "  grid: {train.network_alpha: 4, train.max_train_steps: [5, many, 6], train.weight: [1, 2]}\n"
        "  list: [{train.max_grad_norm: y}, 7]\n"
        "  seeds: [1, 1]\n"
    )
    places = [line.partition(": ")[0].split()[1] for line in found]
    assert places == [
        "train.network_dim",
        "experiments.a.train.learning_rate",
        "experiments.a.runtime.device",
        "experiments.b/c",
        "experiments.b/c.train.seed",
        "experiments.d.train.0",
        "experiments.e",
        "experiments.g.",
        "experiments.g.[0]",
        "experiments.g..",
        "experiments.g.train.max_train_steps",
        "sweep.grid.train.network_alpha",
        "sweep.grid.train.max_train_steps[1]",
        "sweep.grid.train.weight",
        "sweep.list[0].train.max_grad_norm",
        "sweep.list[1]",
        "sweep.seeds[1]",
    ]


def test_values_that_do_not_fit_the_rest_name_the_experiment(config: Any) -> None:
    file = config("train: {max_train_epochs: 2}\nexperiments:\n  a: {}\n  b: {train.max_train_steps: 9}\n")
    with pytest.raises(
        UserError, match=r"config.yaml:6:3 experiments.b: in b: train.max_train_epochs: max_train_steps"
    ):
        file.check_experiments()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("experiments: {a/b: {}}", "found the name 'a/b', expected at most 100 letters, digits and . _ + -"),
        (
            "experiments: {samples: {}}",
            "experiments.samples: 'samples' is the name of something else among the results",
        ),
        ("experiments: {train-2: {}}", "'train-2' is the name of something else"),
        ("experiments: {A: {}, a: {}}", "makes a second experiment called 'a', besides that of experiments.A"),
        ("experiments: {seed-1: {}}\nsweep: {seeds: [1]}", "makes a second experiment called 'seed-1'"),
        ("experiments: {a: 3}", "experiments.a: found 3, expected a mapping"),
        ("experiments: {a: {'train.': 3}}", "found 'train.', expected a setting such as train.learning_rate"),
        ("experiments: {a: {runtime.device: cpu}}", "runtime cannot differ between experiments: it is of the machine"),
        ("experiments: {a: {runtime: {device: cpu}}}", "runtime cannot differ between experiments"),
        ("experiments: {a: {cache: {directory: x}}}", "cache.directory cannot differ between experiments"),
        ("experiments: {a: {sweep: {seeds: [1]}}}", "sweep cannot differ between experiments"),
        ("experiments: {a: {train.seed: 1, train: {seed: 2}}}", "train.seed is set twice in one experiment"),
        ("experiments: {a: {train: }}", "experiments.a.train: found nothing, expected the settings in it that differ"),
        ("experiments: {results: {}}", "'results' is the name of something else"),
        ("sweep: {grid: {train: [{seed: 1}, {seed: 2}]}}", "sweep.grid.train: found a section, expected one setting"),
        ("sweep: {list: [{}, {train.seed: 1}]}", "sweep: makes an experiment in which nothing differs"),
        ("sweep: {seeds: [true]}", "sweep.seeds[0]: found true, expected a whole number"),
        ("sweep: {grid: {train.seed: []}}", "sweep.grid.train.seed: found [], expected at least 1 entry"),
        ("sweep: {grid: {train.seed: 1}}", "sweep.grid.train.seed: found 1, expected a list"),
        ("sweep: {grid: {train.seed: [1, 2, 1]}}", "config.yaml:3:35 sweep.grid.train.seed[2]: found 1 twice"),
        ("sweep: {seeds: [1, 1]}", "sweep.seeds[1]: found 1 twice"),
        ("sweep: {grid: {train.seed: [1]}, seeds: [1]}", "train.seed is set twice in one experiment"),
        ("sweep: {grid: {runtime.device: [cpu]}}", "runtime cannot differ between experiments"),
        ("sweep: {list: [{name: 3, train.seed: 1}]}", "sweep.list[0].name: found 3, expected text"),
        ("sweep: {list: [{train.seed: 1}, {train.seed: 1}]}", "makes a second experiment called 'seed-1'"),
        (
            f"sweep: {{seeds: [{', '.join(map(str, range(MOST + 1)))}]}}",
            "sweep: makes 1,001 experiments, at most 1,000",
        ),
    ],
)
def test_wrong_experiments_are_refused_with_the_config(problems: Problems, text: str, said: str) -> None:
    found = problems(text)
    assert said in found[0]


def test_an_unknown_experiment_is_refused_with_those_that_are_there(config: Any) -> None:
    config("experiments: {small: {}, large: {}}\n")
    with pytest.raises(UserError, match=r"no experiment called 'smal'; did you mean 'small'\?; there are small, large"):
        load_config(Path("config.yaml"), experiment="smal")
    config("")
    with pytest.raises(UserError, match="no experiment called 'a'"):
        load_config(Path("config.yaml"), experiment="a")


def test_no_folder_of_the_results_can_be_the_name_of_an_experiment() -> None:
    paths = ProjectPaths()
    folders = (paths.samples, paths.logs, paths.specs, paths.training, paths.again, paths.benchmarks)
    folders = (*folders, paths.manifests("text").parent, paths.checkpoint(1).parent, paths.training_lock)
    folders = (*folders, paths.reproduction("a").results.parent, paths.comparison().charts, paths.card)
    for folder in folders:
        assert folder.parent == paths.results
        assert is_result_name(folder.name)
    assert not is_result_name("small")
