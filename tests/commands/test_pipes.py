"""A pipe or a device where a file should be: it is named, and not waited for or read for ever."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from tests.commands.workbench import Workbench, hv15, is_a_refusal

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(params=["pipe", "device"])
def odd(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file that is none; each test gives it the name that it needs."""
    path = tmp_path / "odd"
    if request.param == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".json", ".png", ".mp4"])
def test_what_is_shown(suffix: str, odd: Path) -> None:
    is_a_refusal(hv15("show", odd.rename(odd.with_suffix(suffix))), ("not a regular file",))


@pytest.mark.parametrize("command", [("convert",), ("convert", "--to", "diffusers")])
def test_a_lora(command: tuple[str, ...], odd: Path) -> None:
    path = odd.rename(odd.with_suffix(".safetensors"))
    said = hv15(*command, path, path.with_name("out.safetensors"))
    assert said.code == 2
    assert "odd.safetensors" in said.err


def test_a_config(odd: Path) -> None:
    path = odd.rename(odd.with_suffix(".yaml"))
    assert "is not a regular file" in hv15("check", path).out


@pytest.mark.parametrize("role", ["dit", "vae", "text_encoder", "glyph_encoder"])
def test_a_model(role: str, odd: Path, project: Workbench) -> None:
    config = yaml.safe_load((project.root / "config.yaml").read_text())
    config["models"][role] = str(odd.rename(odd.with_suffix(".safetensors")))
    (project.root / "config.yaml").write_text(yaml.safe_dump(config))
    said = project.hv15("check")
    assert said.code == 2
    assert "not a regular file" in said.out
