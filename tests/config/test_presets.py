"""Presets and examples: complete, valid, and honest about files and memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from hv15.commands.options.project import New
from hv15.config import load_config, new_project, preset_names
from hv15.config.presets import DEMO, preset_text
from hv15.errors import UserError
from hv15.models.hub import hub_files

PRESETS = [name for name in preset_names() if name != DEMO]
"""Those of the real model."""
ROLES = ("dit", "vae", "text_encoder", "glyph_encoder", "image_encoder")
WEIGHTS = 8_326_608_160
"""Parameters of the transformer."""
BLOCK = 151_056_896
"""Those of one of its blocks."""


def commands(text: str) -> list[tuple[str, list[str], str]]:
    """Return (repository, files, folder) of each download command in a config's comments."""
    found = re.findall(r"^# +hf download (\S+) (.+) --local-dir (\S+)$", text, re.MULTILINE)
    return [(repo, names.split(), folder) for repo, names, folder in found]


def test_there_are_presets_for_both_tasks() -> None:
    assert PRESETS == ["i2v-16gb", "t2v-24gb", "t2v-80gb"]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_new_project_has_a_valid_config(tmp_path: Path, preset: str) -> None:
    config = new_project(tmp_path / "deep" / "project", preset_text(preset))
    assert config == tmp_path / "deep" / "project" / "config.yaml"
    settings = load_config(config)
    assert settings.task == preset[:3]
    assert settings.models.variant.endswith(settings.task)
    assert settings.sample.prompts
    assert settings.models.missing_files(settings.roles) == []


@pytest.mark.parametrize("preset", PRESETS)
def test_the_commands_fetch_exactly_the_files_that_the_config_names(tmp_path: Path, preset: str) -> None:
    settings = load_config(new_project(tmp_path, preset_text(preset)))
    fetched = {f"{folder}/{name}" for _, names, folder in commands(preset_text(preset)) for name in names}
    named = {path for role in ROLES if (path := getattr(settings.models, role)) is not None}
    assert named <= fetched
    assert {Path(path).parent.as_posix() for path in fetched - named} == {settings.models.tokenizer}


@pytest.mark.parametrize("preset", PRESETS)
def test_as_many_paths_are_to_be_deleted_as_there_are(tmp_path: Path, preset: str) -> None:
    """With `source: hub`, none of them may be left."""
    new_project(tmp_path, preset_text(preset))
    given = load_config(tmp_path / "config.yaml").models.model_fields_set & {*ROLES, "tokenizer"}
    [words] = re.findall(r"delete the (\w+) paths", preset_text(preset))
    assert {"five": 5, "six": 6}[words] == len(given)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_commands_fetch_the_files_of_source_hub(tmp_path: Path, preset: str) -> None:
    """Files copied by hand and files from `source: hub` end up in the same places."""
    new_project(tmp_path, preset_text(preset))
    paths: dict[str, None] = dict.fromkeys(ROLES)
    overrides = {"models": {"source": "hub", **paths, "tokenizer": "Qwen/Qwen2.5-VL-7B-Instruct"}}
    files = hub_files(load_config(tmp_path / "config.yaml", overrides)).values()
    by_hand = {
        (repo, name, tmp_path / folder / name)
        for repo, names, folder in commands(preset_text(preset))
        for name in names
    }
    assert by_hand == {
        (file.repo, name, target) for file in files for name, target in zip(file.names, file.targets, strict=True)
    }


@pytest.mark.parametrize("preset", PRESETS)
def test_the_memory_in_the_comment_is_computed_from_the_config(tmp_path: Path, preset: str) -> None:
    settings = load_config(new_project(tmp_path, preset_text(preset)))
    text = " ".join(line.removeprefix("#").strip() for line in preset_text(preset).splitlines() if line.startswith("#"))
    width, height = settings.datasets[0].resolution
    frames = (max(settings.datasets[0].target_frames) - 1) // 4 + 1
    tokens = frames * (width // 16) * (height // 16)
    per_parameter = 12 if settings.train.optimizer_type == "Muon" else 10  # fp32 weight, gradient; state of 4 or 2 x 1
    linears = 2 * (2048 + 12288) + 2 * 4 * 4096 + 2 * 2 * (2048 + 8192)  # in + out of a block's 14 linears
    parts = {
        "weights": 2 * (WEIGHTS - settings.train.blocks_to_swap * BLOCK),
        "kept": 54 * tokens * 2048 * 2,
        "lora": 54 * linears * settings.train.network_dim * per_parameter,
    }
    assert f"{tokens:,} tokens" in text
    for size in (*parts.values(), sum(parts.values())):
        assert f"{size / 2**30:.1f} GiB" in text
    assert "computed, not measured" in text
    assert sum(parts.values()) / 2**30 < 0.8 * int(preset[4:].removesuffix("gb"))
    assert settings.sample.blocks_to_swap > 0 or preset != "i2v-16gb"


def test_the_help_names_every_preset() -> None:
    _, argument = get_args(get_type_hints(New, include_extras=True)["preset"])
    assert sorted(argument.help.replace(" or ", ", ").split(", ")) == preset_names()


def test_the_demo_is_a_preset_that_asks_for_nothing(tmp_path: Path) -> None:
    settings = load_config(new_project(tmp_path, preset_text(DEMO)))
    assert settings.models.source == "demo"
    assert not commands(preset_text(DEMO))


def test_an_unknown_preset_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 't2v-24gb'") as caught:
        new_project(tmp_path, preset_text("t2v-24"))
    assert "demo, i2v-16gb, t2v-24gb, t2v-80gb" in caught.value.hint
    assert not (tmp_path / "config.yaml").exists()


def test_an_existing_config_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="already exists"):
        new_project(tmp_path, preset_text("t2v-24gb"))
    assert (tmp_path / "config.yaml").read_text(encoding="utf-8") == "mine"
