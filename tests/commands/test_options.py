"""The commands' options: what each line means, whatever the command does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import is_dataclass
from inspect import Parameter, signature
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import pytest

from hv15.arguments import Group
from hv15.cli import parse
from hv15.commands.options import COMMANDS
from hv15.commands.options.base import ProjectCommand, SettingsCommand
from hv15.commands.options.project import Check, Show
from hv15.commands.options.runs import Run
from hv15.commands.options.sample import Sample, Upsample
from hv15.environment import CONFIG_VARIABLE, OVERRIDES_VARIABLE
from tests.workflow.project import environment

EVERY = [each for entry in COMMANDS for each in (entry.commands if isinstance(entry, Group) else (entry,))]
OF_PROJECTS = [each for each in EVERY if issubclass(each, ProjectCommand) and each not in (Sample, Upsample)]
"""All but two: what follows `hv15 sample` are prompts, and what follows `hv15 upsample` is a file."""


def words_of(command: type) -> list[str]:
    """The words that choose a command."""
    for entry in COMMANDS:
        if entry is command:
            return [entry.name]
        if not isinstance(entry, type) and command in entry.commands:
            return [entry.name, command.name]
    raise AssertionError(command)


def required(command: type[ProjectCommand]) -> Iterator[str]:
    """The options that a command cannot do without."""
    for name, parameter in signature(command).parameters.items():
        if parameter.default is Parameter.empty:
            argument = get_type_hints(command, include_extras=True)[name].__metadata__[0]
            kind = get_type_hints(command)[name]
            value = str(get_args(kind)[0]) if get_origin(kind) is Literal else "x"
            yield from (argument.flags[0] if argument.flags else f"--{name}", value)


@pytest.fixture(autouse=True)
def outside_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (CONFIG_VARIABLE, OVERRIDES_VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("command", EVERY, ids=lambda command: "-".join(words_of(command)))
def test_every_command_is_a_frozen_dataclass_with_a_docstring(command: type) -> None:
    assert is_dataclass(command)
    assert command.__dataclass_params__.frozen
    assert command.__doc__
    assert not command.__doc__.startswith(f"{command.__name__}("), "a dataclass writes this one itself"


@pytest.mark.parametrize("command", OF_PROJECTS, ids=lambda command: "-".join(words_of(command)))
def test_every_command_takes_its_project_in_the_same_ways(command: type[ProjectCommand], tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.touch()
    other = tmp_path / "other.yaml"
    other.touch()
    words, more = words_of(command), list(required(command))
    for line, found in (
        ([*words, str(tmp_path), *more], config),
        ([*words, *more, str(tmp_path)], config),
        ([*words, *more, "--config", str(tmp_path)], config),
        ([*words, str(config), *more], config),
        ([*words, "--config", str(other), *more], other),
        ([*words, *more], Path("config.yaml")),
    ):
        given = parse(line)
        assert isinstance(given, command)
        assert given.config == found


def test_what_follows_sample_are_prompts(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    for flag in ("--project", "--config"):
        given = parse(["sample", "a cat", str(tmp_path), "--seed", "1", "2", flag, str(tmp_path)])
        assert isinstance(given, Sample)
        assert given.config == tmp_path / "config.yaml"
        assert (given.prompts, given.seed) == (("a cat", str(tmp_path)), (1, 2))


def test_a_job_learns_its_project_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "config.yaml"))
    monkeypatch.setenv(OVERRIDES_VARIABLE, '{"task": "i2v"}')
    command = parse(["encode", "latents"])
    assert isinstance(command, SettingsCommand)
    assert (command.config, command.overrides) == (tmp_path / "config.yaml", {"task": "i2v"})
    command = parse(["check", "elsewhere.yaml", "--overrides", "{}"])
    assert command == Check(project=Path("elsewhere.yaml"))


@pytest.mark.parametrize(("given", "said"), [("[1]", "expected a JSON object"), ("{", "not JSON")])
def test_overrides_are_an_object(
    given: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for line, variable in ((["check", "--overrides", given], "{}"), (["check"], given)):
        monkeypatch.setenv(OVERRIDES_VARIABLE, variable)
        with pytest.raises(SystemExit):
            parse(line)
        assert said in capsys.readouterr().err


def test_words_for_snakemake_are_not_ours() -> None:
    assert parse(["run", "folder", "--follow", "--snakemake", "-n", "--config", "a=1"]) == Run(
        project=Path("folder"), follow=True, snakemake=("-n", "--config", "a=1")
    )


def test_show_prints_a_config() -> None:
    assert parse(["show", "lora.safetensors", "--config"]) == Show(file=Path("lora.safetensors"), as_config=True)


def test_the_help_loads_nothing_heavy() -> None:
    """The dashboard, the rules and the shell's completion start the program often."""
    heavy = ("torch", "pydantic", "yaml", "numpy", "psutil", "snakemake", "textual", "transformers", "hv15.config")
    code = (
        "import sys, hv15.cli\n"
        "try: hv15.cli.main(['--help'])\n"
        f"except SystemExit: sys.exit(', '.join(name for name in {heavy} if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", [Sample, Upsample])
def test_model_files_stand_together_in_the_order_in_which_they_are_used(
    command: type, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse([*words_of(command), "--help"])
    _, _, listed = capsys.readouterr().out.partition("model files, instead of the project's:")
    names = [line.split()[0] for line in listed.splitlines() if line.startswith("  --")]
    first = ["--dit"] if command is Sample else []
    others = ["--vae", "--text-encoder", "--tokenizer", "--glyph-encoder", "--image-encoder", "--sr-dit", "--upsampler"]
    assert names == [*first, *others]
