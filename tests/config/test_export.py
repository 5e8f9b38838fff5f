"""The files that are made from the settings are current and true."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from hv15.config import Settings, fields, load_config
from hv15.config.after_edit import AFTER_EDIT
from hv15.config.export import REPOSITORY, exports
from hv15.config.load import ConfigSource
from hv15.config.yaml_file import read_yaml

PAPER = Path("examples/paper-shift/config.yaml")
"""An example that is written by hand."""
CONFIGS = [PAPER, *(path for path in exports() if path.name == "config.yaml")]


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = json.loads((REPOSITORY / "hv15/config/schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", exports(), ids=str)
def test_the_made_files_are_current(path: Path) -> None:
    found = (REPOSITORY / path).read_text(encoding="utf-8")
    assert found == exports()[path], "run: python -m hv15.config.export"


def test_nothing_else_stands_among_the_examples() -> None:
    found = {path.relative_to(REPOSITORY) for path in (REPOSITORY / "examples").rglob("config.yaml")}
    assert found == {PAPER, *(path for path in exports() if path.parts[0] == "examples")}


def test_the_ablation_of_the_shift_is_comparable() -> None:
    """Five shifts with three seeds each, measured at the same noise levels and sampled in the same way."""
    source = ConfigSource(REPOSITORY / PAPER)
    settings = [source.settings(name) for name in source.experiments]
    found = {(each.train.discrete_flow_shift, each.train.seed) for each in settings}
    assert found == {(shift, seed) for shift in (1, 2, 3, 5, 7) for seed in (1, 2, 3)}
    assert {each.train.validation.noise_levels for each in settings} == {"even"}
    assert len({each.sample.model_dump_json() for each in settings}) == 1


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_the_schema_accepts_every_config_that_we_ship(validator: Any, path: Path) -> None:
    validator.validate(read_yaml(REPOSITORY / path).data)


def test_the_schema_accepts_a_full_dump_and_a_toml_path(validator: Any) -> None:
    validator.validate(load_config(REPOSITORY / "config.yaml").dump())
    validator.validate({"datasets": "dataset.toml"})


@pytest.mark.parametrize(
    "change",
    [
        {"train": {"learning_rat": 1e-4}},
        {"trian": {}},
        {"train": {"learning_rate": -1}},
        {"train": {"optimizer_type": "SGD"}},
        {"sample": {"video_size": [64]}},
        {"sample": {"video_size": [64, 65]}},
        {"datasets": [{"target_frames": "many"}]},
        {"runtime": {"device": 1}},
    ],
    ids=str,
)
def test_the_schema_refuses_what_the_models_refuse(validator: Any, change: dict[str, Any]) -> None:
    data = {**read_yaml(REPOSITORY / "config.yaml").data, **change}
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(data)


def test_the_table_has_every_setting() -> None:
    table = exports()[Path("docs/settings.md")]
    for field in fields(Settings):
        name = field.path.split(".", 1)[-1]
        assert f"`{name}`" in table or f"## {name}" in table


def test_schema_and_table_say_what_an_edit_does() -> None:
    schema = json.loads(exports()[Path("hv15/config/schema.json")])

    def said(section: str, name: str) -> str:
        return schema["$defs"][section]["properties"][name]["description"]

    anew = " A change starts the training anew, unless train.continue_from is set."
    assert said("TrainSettings", "learning_rate").endswith(anew)
    assert said("DatasetSettings", "resolution").endswith(anew)
    assert schema["properties"]["task"]["description"].endswith(anew)
    assert said("TrainSettings", "save_precision").endswith(" A change continues the training.")
    assert "A change continues the training;" in said("MeasuredDataset", "resolution")
    assert "A change" not in said("SampleSettings", "quantize")
    assert "A change" not in said("SampledLoraSettings", "path")
    table = exports()[Path("docs/settings.md")]
    for mark, words in AFTER_EDIT.items():
        assert f"- *{mark}*: {words}\n" in table
    rows = {line.split("`")[1]: line for line in table.splitlines() if line.startswith("| `")}
    assert rows["learning_rate"].endswith("*(past)* |")
    assert rows["validation.datasets[].resolution"].endswith("*(measuring)* |")
    assert rows["validation"].endswith("trained on. |"), "its settings have marks of their own"


def test_every_row_of_the_table_has_four_cells() -> None:
    rows = [line for line in exports()[Path("docs/settings.md")].splitlines() if line.startswith("| `")]
    assert len(rows) > 100
    assert {row.replace("\\|", "").count("|") for row in rows} == {5}


def test_the_docs_name_the_target_before_the_settings() -> None:
    """`snakemake --config a=1 TARGET` takes the target for a setting."""
    texts = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
    calls = [call for path in texts for call in re.findall(r"`(snakemake[^`]*--config[^`]*)`", path.read_text())]
    assert calls
    for call in calls:
        assert re.match(r"snakemake (-d \S+ )?results/\S+ .*--config", call), call
