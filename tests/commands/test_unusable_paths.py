"""A path of the user's that the system refuses, in a setting or on the command line, is said in one sentence."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hv15.errors import UserError, of_the_system
from hv15.models.weights.fingerprint import model_fingerprint
from tests.commands.workbench import Workbench, hv15

LONG = "n" * 300
SETTINGS = {
    "datasets file": {"datasets": f"{LONG}.toml"},
    "video_directory": {"datasets": [{"video_directory": LONG, "resolution": [64, 64]}]},
    "sample lora": {"sample": {"loras": [{"path": f"{LONG}.safetensors"}]}},
    "network_weights": {"train": {"network_weights": f"{LONG}.safetensors"}},
    "vae": {"models": {"vae": LONG}},
    "dit": {"models": {"dit": LONG}},
    "tokenizer": {"models": {"tokenizer": LONG}},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize(
    "words", [("check",), ("check", "--json"), ("encode", "texts"), ("why",), ("run", "--dry-run")]
)
def test_a_setting(project: Workbench, settings: dict[str, object], words: tuple[str, ...]) -> None:
    project.set(**settings)
    said = project.hv15(*words)
    if words[0] == "check" or said.code:  # a command that does not need the file does not mind
        assert said.code == 2, said
        assert "File name too long" in said.out + said.err


COMMANDS = [
    ("show", LONG),
    ("check", LONG),
    ("run", LONG),
    ("status", LONG),
    ("stop", LONG),
    ("new", LONG),
    ("convert", LONG, "out.safetensors"),
    ("gc", LONG),
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_an_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    monkeypatch.chdir(tmp_path)
    said = hv15(*words)
    assert said.code == 2, said
    assert "File name too long" in said.out + said.err


def test_a_model_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "first.png"
    path.write_bytes(b"picture")

    def refuse(self: Path, *words: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=r"first.png: cannot be read: Permission denied"):
        model_fingerprint(path)


def test_the_words() -> None:
    said = of_the_system(PermissionError(errno.EACCES, "Permission denied", b"caf\xe9"))
    assert said.message == "caf\udce9: Permission denied"
    assert said.hint
