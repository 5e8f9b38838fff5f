"""What `sample:` accepts: its LoRAs, its prompts with their names, and super resolution."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from hv15.choices import roles_of
from hv15.config import PromptSettings, SampleSettings, fields
from hv15.config.sample import automatic_name
from tests.config.conftest import Load, Problems


@pytest.mark.parametrize(
    ("given", "where", "message"),
    [
        ({"include_patterns": ["ok", "(img"]}, ("include_patterns",), "'(img' is not a regular expression"),
        ({"strength_by": [{"factor": 0}]}, ("strength_by", 0), "expected blocks, steps, or both"),
        ({"strength_by": [{"blocks": [1, 2]}]}, ("strength_by", 0, "factor"), "Field required"),
        ({"strength_by": [{"blocks": [9, 3], "factor": 0}]}, ("strength_by", 0, "blocks"), "the first block before"),
        (
            {"strength_by": [{"steps": [0.5, 0.5], "factor": 0}]},
            ("strength_by", 0, "steps"),
            "the begin before the end",
        ),
        ({"strength_by": [{"steps": [0, 25], "factor": 0}]}, ("strength_by", 0, "steps", 1), "less than or equal to 1"),
    ],
)
def test_where_a_lora_acts_is_refused_at_the_field(
    given: dict[str, Any], where: tuple[str | int, ...], message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        SampleSettings.model_validate({"loras": [{"path": "a.safetensors", **given}]})
    (error,) = caught.value.errors()
    assert error["loc"] == ("loras", 0, *where)
    assert message in error["msg"]


def test_a_prompt_without_a_name_gets_one_from_its_words() -> None:
    prompt = PromptSettings.model_validate({"prompt": 'A red "STOP" sign, slowly turning; in the rain and the wind'})
    assert prompt.name == automatic_name(prompt.prompt)
    assert prompt.name.startswith("a-red-stop-sign-slowly-turning-in-the-ra-")
    other = PromptSettings.model_validate({"prompt": prompt.prompt + "."})
    assert other.name != prompt.name
    assert automatic_name("你好").startswith("prompt-")
    assert automatic_name("x", "a.png") != automatic_name("x", "b.png")


def test_a_prompt_in_a_block_of_yaml_is_the_same_prompt(load: Load) -> None:
    """A YAML block ends with a line break, which the text encoder would see."""
    block = load("sample:\n  prompts:\n    - prompt: >\n        a cat\n        sleeps\n")
    assert block.sample == load("sample: {prompts: [{prompt: a cat sleeps}]}").sample


@pytest.mark.parametrize("name", ["a b", "../a", "a.b", ".a", "-a", "ä", "a" * 101])
def test_names_that_are_no_file_names_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="for file names"):
        PromptSettings.model_validate({"prompt": "x", "name": name})


@pytest.mark.parametrize("end", ["n" * 20, "ha-" * 20])
def test_a_name_that_snakemake_makes_no_job_for_is_refused(end: str) -> None:
    """It takes such a value of a wildcard for the trace of a rule that calls itself."""
    from snakemake.io import PeriodicityDetector

    found = PeriodicityDetector()
    assert found.is_periodic(f"a{end}")
    with pytest.raises(ValidationError, match="20 times or more: give a shorter name"):
        PromptSettings.model_validate({"prompt": "x", "name": f"a{end}"})
    assert not found.is_periodic(end[:-1])
    assert PromptSettings.model_validate({"prompt": "x", "name": end[:-1]}).name == end[:-1]


def test_two_prompts_of_one_name_are_refused_also_by_case(problems: Problems) -> None:
    """Some disks do not distinguish A from a."""
    lines = problems("sample:\n  prompts:\n    - {name: cat, prompt: one}\n    - {name: Cat, prompt: two}")
    assert lines == [
        "config.yaml:6:14 sample.prompts[1].name: 'Cat' is also the name of prompts[0]: give each prompt its own name"
    ]


def test_every_setting_of_a_prompt_takes_the_values_of_the_section() -> None:
    listed = {field.path: field for field in fields(SampleSettings)}
    shared = set(PromptSettings.model_fields) & set(SampleSettings.model_fields)
    assert len(shared) == 14
    for name in shared:
        assert listed[f"prompts[].{name}"].type == listed[name].type
        assert listed[f"prompts[].{name}"].default is None


def test_super_resolution_needs_its_models_only_where_it_is_on(problems: Problems, load: Load) -> None:
    models = "models: {dit: d, vae: v, text_encoder: t, glyph_encoder: g}\n"

    def found(sample: str) -> list[str]:
        return problems(f"{models}sample: {{{sample}}}", base=False)

    (transformer, upsampler) = found("sr: auto, prompts: [{prompt: a cat}]")
    assert transformer.endswith(
        "models.sr_dit: is missing: sample.sr is auto, which needs its path (or models.source hub or demo)"
    )
    assert "models.upsampler: is missing" in upsampler
    assert len(found("prompts: [{prompt: a cat, sr: 720p}]")) == 2
    small = load(f"{models}sample: {{sr: 720p, prompts: [{{prompt: a cat, sr: off}}]}}", base=False)
    assert small.roles == roles_of("t2v")


def test_all_samples_are_enlarged_by_the_same_models(problems: Problems) -> None:
    prompts = "[{prompt: a, sr: 720p}, {prompt: b, sr: 1080p}, {prompt: c, sr: auto}, {prompt: d, sr: 'off'}]"
    models = "models: {source: hub, variant: 480p_t2v}\n"
    (line,) = problems(f"{models}datasets: [{{video_directory: clips}}]\nsample: {{prompts: {prompts}}}", base=False)
    assert "sample.prompts[0].sr: found 720p, but others become 1080p" in line
