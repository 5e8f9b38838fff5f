"""load_config: every problem at its place, all at once; overrides; environment variables; musubi's TOML."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from hv15.config import load_config
from hv15.records.problems import COMMAND_LINE, ConfigError, Place, Problem
from tests.config.conftest import Load, Problems


def test_every_problem_is_named_once_and_in_the_order_of_the_file(problems: Problems) -> None:
    text = """\
train:
  learning_rat: 1e-4
  learning_rate: fast
  seed: true
  lr_warmup_steps: soon
  optimizer_type: AdamW8Bits
  network_dim: 0
sample:
  video_length: 24
  prompts:
    - name: one/two
    - {prompt: a cat, seed: -1}
cache: []
"""
    assert problems(text) == [
        "config.yaml:4:3 train.learning_rat: unknown key; did you mean 'learning_rate'?",
        "config.yaml:5:18 train.learning_rate: found 'fast', expected a number",
        "config.yaml:6:9 train.seed: true or false makes no sense here",
        "config.yaml:7:20 train.lr_warmup_steps: found 'soon', expected a number",
        "config.yaml:8:19 train.optimizer_type: found 'AdamW8Bits', expected one of AdamW, AdamW8bit, PagedAdamW8bit, "
        "Adafactor, Muon, Lion, CAME, AdEMAMix, Prodigy, ProdigyPlusScheduleFree, AdamWScheduleFree, or the path of a "
        "class, such as torch.optim.RAdam; did you mean 'AdamW8bit'?",
        "config.yaml:9:16 train.network_dim: found 0, expected at least 1",
        "config.yaml:11:17 sample.video_length: 24 frames: the VAE needs 4k+1 frames; the nearest are 21 and 25",
        "config.yaml:13:7 sample.prompts[0].prompt: is missing",
        "config.yaml:13:13 sample.prompts[0].name: found 'one/two', expected at most 100 letters, digits, - and _ "
        "(for file names)",
        "config.yaml:14:29 sample.prompts[1].seed: found -1, expected at least 0",
        "config.yaml:15:8 cache: found [], expected a mapping of settings",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("trian: {}", "config.yaml:3:1 trian: unknown key; did you mean 'train'?"),
        ("xyzzy: 1", "config.yaml:3:1 xyzzy: unknown key"),
        ("convert: {output_name: ../x}", "found '../x', expected at most 100 letters, digits, ., - and _"),
        ("sample: {network_dim: 8}", "config.yaml:3:10 sample.network_dim: unknown key; it belongs to train"),
        ("train: {dtype: bf16}", "found 'bf16', expected one of auto, float32, bfloat16; did you mean 'bfloat16'?"),
        ("cache: {dtype: fp16}", "did you mean 'float16'?"),
        ("train: {dtype: fp16}", "float16 overflows in training"),
        ("train: {timestep_sampling: logit-normal}", "did you mean 'logit_normal'?"),
        ("train: {lr_scheduler: constant_with_warmup}", "use constant, and set lr_warmup_steps"),
        ("train: {optimizer_type: 3}", "train.optimizer_type: found 3, expected one of AdamW, AdamW8bit"),
        ("train: {optimizer_type: a..b}", "train.optimizer_type: found 'a..b', expected one of AdamW, AdamW8bit"),
        ("train: {learning_rate_patterns: {img: fast}}", "'img': found 'fast', expected a rate, or a factor"),
        ("train: {learning_rate_patterns: {img: -1}}", "found -1, expected at least 0"),
        (
            "train: {learning_rate_patterns: {img: 0.5}}",
            "found 0.5, which is 5,000 times learning_rate; write a factor",
        ),
        ("sample: {negative_prompt: 3}", "found 3, expected text (put it in quotes)"),
        ("train: {max_train_steps: 1.5}", "found 1.5, expected a whole number"),
        ("train: {learning_rate: .nan}", "found nan, expected a finite number"),
        ("train: {gradient_checkpointing: maybe}", "found 'maybe', expected true or false"),
        ("train: {optimizer_args: [weight_decay=0.1]}", "expected a mapping of name: value"),
        ("sample: {video_size: 480}", "found 480, expected a list"),
        ("sample: {video_size: [480]}", "config.yaml:3:22 sample.video_size: has too few entries"),
        ("sample: {prompts: [{prompt: ''}]}", "found '', expected some text"),
        ("runtime: 3", "config.yaml:3:10 runtime: found 3, expected a mapping of settings"),
    ],
)
def test_a_problem_is_one_sentence(problems: Problems, text: str, expected: str) -> None:
    lines = problems(text)
    assert len(lines) == 1
    assert expected in lines[0]


def test_without_datasets_a_project_samples(problems: Problems, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    for datasets in ("", "datasets: []"):
        file.write_text(f"models: {{source: demo}}\n{datasets}")
        assert load_config(file).datasets == ()
    nothing = problems("models: {source: demo}\ndatasets:", base=False)
    assert nothing == ["config.yaml:2:10 datasets: found nothing, expected a list"]


def test_a_dataset_whose_entries_are_wrong_is_not_called_empty(problems: Problems) -> None:
    lines = problems("models: {source: demo}\ndatasets: [{video_directory: a, target_frames: [4, 9]}]", base=False)
    assert lines == [
        "config.yaml:2:49 datasets[0].target_frames[0]: 4 frames: the VAE needs 4k+1 frames; the nearest are 1 and 5"
    ]


def test_a_heading_without_settings_has_the_defaults(load: Load) -> None:
    assert load("train:\ncache: {}\n").train == load().train


def test_overrides_are_merged_deeply_and_read_like_the_file(load: Load) -> None:
    overrides = {"train": {"learning_rate": "1e-5", "optimizer_args": {"weight_decay": "1e-2"}}, "task": "t2v"}
    settings = load("train: {seed: 7, optimizer_args: {eps: 1e-9}}", overrides=overrides)
    assert settings.train.learning_rate == 1e-5
    assert settings.train.seed == 7
    assert settings.train.optimizer_args == {"eps": 1e-9, "weight_decay": 0.01}


def test_the_order_of_patterns_is_kept_in_a_dump(load: Load) -> None:
    """The first that is found in a name counts, and digests sort the keys of mappings."""
    settings = load("train: {learning_rate_patterns: {z: 0.5x, a: 1e-5}}")
    dumped = settings.dump()
    assert dumped["train"]["learning_rate_patterns"] == [{"z": "0.5x"}, {"a": 1e-5}]  # type: ignore[index, call-overload]
    again = type(settings).model_validate(dumped)
    assert list(again.train.learning_rate_patterns) == ["z", "a"]
    assert again == settings


def test_an_override_replaces_a_list_and_fills_an_empty_section(load: Load) -> None:
    overrides = {"datasets": [{"image_directory": "stills"}], "train": {"seed": 3}}
    settings = load("train:\n", overrides=overrides)
    assert [dataset.image_directory for dataset in settings.datasets] == ["stills"]
    assert settings.train.seed == 3


def test_a_wrong_override_is_located_on_the_command_line(problems: Problems) -> None:
    lines = problems(
        "train: {seed: x}", overrides={"train": {"learning_rate": "-1", "rank": 4}, "cache": {"shards": 0}}
    )
    assert lines == [
        "config.yaml:3:15 train.seed: found 'x', expected a whole number",
        "--config cache.shards: found 0, expected at least 1",
        "--config train.learning_rate: found '-1', expected at least 0",
        "--config train.rank: unknown key",
    ]


def test_an_error_gives_its_problems_as_records(load: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        load("train: {seed: x}", overrides={"cache": {"shards": 0}})
    assert caught.value.problems == (
        Problem("found 'x', expected a whole number", place=Place(Path("config.yaml"), 3, 15, ("train", "seed"))),
        Problem("found 0, expected at least 1", place=Place(COMMAND_LINE, setting=("cache", "shards"))),
    )


def test_each_hint_is_said_once() -> None:
    error = ConfigError([Problem("one", "look"), Problem("two", "look"), Problem("three", "wait", Place(Path("a"), 4))])
    assert str(error) == "one\ntwo\na:4: three\n  hint: look; wait"


def test_environment_variables_are_expanded_in_paths_alone(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPS", "/data/clips")
    monkeypatch.delenv("HV15_NOT_SET", raising=False)
    text = "models: {source: demo, directory: '${HV15_NOT_SET:-my/models}'}\n"
    text += "datasets: [{video_directory: '${CLIPS}/a', caption_prefix: '${CLIPS} '}]\n"
    settings = load(text, base=False)
    assert settings.datasets[0].video_directory == "/data/clips/a"
    assert settings.datasets[0].caption_prefix == "${CLIPS} "
    assert settings.models.directory == "my/models"


def test_an_unset_variable_is_named_at_its_place(problems: Problems, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HV15_NOT_SET", raising=False)
    (line,) = problems("cache: {directory: '${HV15_NOT_SET}/x'}")
    assert line.startswith("config.yaml:3:20 cache.directory: the environment variable HV15_NOT_SET is not set")


def test_relative_paths_start_at_the_config_and_not_at_the_working_directory(load: Load, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    load()
    (tmp_path / "config.yaml").rename(project / "config.yaml")
    settings = load_config(Path("project/config.yaml"))
    assert settings.root == project
    assert settings.resolve("cache") == project / "cache"
    assert settings.resolve("/elsewhere/x") == Path("/elsewhere/x")
    assert settings.resolve("~/x") == Path.home() / "x"


def test_a_dump_loads_again_as_the_same_settings(load: Load) -> None:
    text = """\
train: {max_train_epochs: 3, optimizer_args: {betas: [0.9, 0.95]}, lr_warmup_steps: 0.1}
sample: {prompts: [{prompt: 'a "cat"', video_size: [64, 96], loras: [{path: x.safetensors}]}]}
"""
    settings = load(text)
    again = load(json.dumps(settings.dump()), base=False)
    assert again == settings
    assert again.dump() == settings.dump()


TOML = """\
[general]
resolution = [960, 544]
caption_extension = ".caption"

[[datasets]]
video_directory = "clips"
target_frames = [1, 25, 46]
frame_extraction = "uniform"
frame_sample = 2
cache_directory = "old/cache"

[[datasets]]
image_jsonl_file = "stills.jsonl"
resolution = 512
"""


def test_a_musubi_toml_is_accepted_as_it_is(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    Path("dataset.toml").write_text(TOML, encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        videos, images = load("models: {source: demo}\ndatasets: dataset.toml", base=False).datasets
    assert (videos.video_directory, videos.target_frames, videos.frame_sample) == ("clips", (1, 25, 45), 2)
    assert videos.caption_extension == ".caption"
    assert (images.kind, images.source, images.resolution) == ("image", "stills.jsonl", (512, 512))
    assert "datasets[0]: cache_directory is not used: all datasets are cached in cache.directory" in caplog.text
    assert "[1, 25, 46] rounded down to [1, 25, 45]" in caplog.text


def test_a_problem_in_a_toml_names_the_toml(problems: Problems, tmp_path: Path) -> None:
    Path("dataset.toml").write_text(TOML.replace("frame_sample", "frame_samples"), encoding="utf-8")
    (line,) = problems("models: {source: demo}\ndatasets: dataset.toml", base=False)
    assert line == f"{tmp_path}/dataset.toml datasets[0].frame_samples: unknown key; did you mean 'frame_sample'?"


def test_a_dataset_path_that_is_no_toml_says_what_to_write(problems: Problems) -> None:
    Path("clips").mkdir()
    (line,) = problems("models: {source: demo}\ndatasets: clips", base=False)
    assert line == "config.yaml:2:11 datasets: clips is a folder; write a list: [{video_directory: clips}]"
    (line,) = problems("models: {source: demo}\ndatasets: gone.toml", base=False)
    assert line.startswith("config.yaml:2:11 datasets: there is no file ")
    (line,) = problems(overrides={"datasets": "gone.toml"})
    assert line.startswith("--config datasets: there is no file ")


def test_reading_a_config_loads_no_heavy_library(load: Load) -> None:
    load("sample: {prompts: [{prompt: a cat}]}")
    code = (
        "import sys; from pathlib import Path; from hv15.config import load_config, fields, Settings\n"
        "load_config(Path('config.yaml')); list(fields(Settings))\n"
        "heavy = {'torch', 'transformers', 'diffusers', 'av', 'accelerate', 'numpy', 'PIL', 'snakemake', 'textual'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert run.stdout.strip() == "[]"
