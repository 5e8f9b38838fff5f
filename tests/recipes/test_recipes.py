"""What others train with, written into a new config."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml

from hv15.commands.options.project import New
from hv15.config import load_config, new_project, preset_names, preset_text
from hv15.errors import UserError
from hv15.models.variants import VARIANTS
from hv15.recipes import recipe_names, with_recipe

ON_RECORD: dict[str, dict[str, Any]] = {
    "official": {
        "timestep_sampling": "logit_normal",
        "discrete_flow_shift": 3,
        "optimizer_type": "Muon",
        "optimizer_args": {"weight_decay": 0.01},
        "learning_rate": 1e-4,
        "max_grad_norm": 1,
        "i2v_prob": 0.3,
        "network_dim": 8,
        "network_alpha": 16,
    },
    "musubi": {
        "timestep_sampling": "shift",
        "discrete_flow_shift": 2,
        "weighting_scheme": "none",
        "optimizer_type": "AdamW8bit",
        "learning_rate": 1e-4,
        "network_dim": 32,
        "network_alpha": 1,
        "max_train_epochs": 16,
        "max_train_steps": None,
    },
    "simpletuner": {"timestep_sampling": "shift", "network_dim": 16, "learning_rate": 1e-4},
    "diffusion-pipe": {
        "timestep_sampling": "logit_normal",
        "discrete_flow_shift": 1,
        "learning_rate": 2e-5,
        "optimizer_args": {"betas": (0.9, 0.99), "weight_decay": 0.01},
        "network_dim": 32,
        "network_alpha": 32,
    },
}
"""Published settings."""


def test_every_recipe_is_on_record() -> None:
    assert recipe_names() == sorted(ON_RECORD)


@pytest.mark.parametrize("recipe", recipe_names())
@pytest.mark.parametrize("preset", preset_names())
def test_a_recipe_replaces_settings_of_training_and_nothing_else(tmp_path: Path, preset: str, recipe: str) -> None:
    text = with_recipe(preset_text(preset), recipe)
    found = load_config(new_project(tmp_path, text)).train.model_dump()
    assert {name: found[name] for name in ON_RECORD[recipe]} == ON_RECORD[recipe]
    before, after = yaml.safe_load(preset_text(preset)), yaml.safe_load(text)
    own, theirs = before.pop("train"), after.pop("train")
    assert before == after
    gone = {"max_train_steps", "save_every_n_steps"} if recipe == "musubi" else set()
    assert own.keys() - theirs.keys() <= gone
    assert not gone & theirs.keys()


@pytest.mark.parametrize("preset", ["t2v-24gb", "i2v-16gb", "t2v-80gb"])
def test_simpletuner_trains_with_the_shift_of_sampling(preset: str) -> None:
    config = yaml.safe_load(with_recipe(preset_text(preset), "simpletuner"))
    assert config["train"]["discrete_flow_shift"] == VARIANTS[config["models"]["variant"]].flow_shift


def test_what_was_written_by_hand_stays() -> None:
    """Comments of the preset, above its settings and beside them."""
    text, changed = preset_text("i2v-16gb"), with_recipe(preset_text("i2v-16gb"), "official")
    for line in text.splitlines():
        if line.startswith("#") or "blocks_to_swap" in line:
            assert line in changed.splitlines()
    assert "  # Recipe official: as the makers' own train.py trains a LoRA." in changed


def test_an_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="did you mean 'musubi'") as caught:
        with_recipe(preset_text("demo"), "musuby")
    assert "diffusion-pipe, musubi, official, simpletuner" in caught.value.hint


def test_the_help_names_every_recipe() -> None:
    _, argument = get_args(get_type_hints(New, include_extras=True)["recipe"])
    named = argument.help.partition(": ")[2].partition(" (")[0]
    assert sorted(named.replace(" or ", ", ").split(", ")) == recipe_names()
