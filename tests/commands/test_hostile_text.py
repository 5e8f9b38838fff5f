"""Names, captions, keys and metadata that a terminal would obey, through the commands that show them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from hv15.records.failures import Failure, FailureKind
from hv15.runs.record import RunFolder, new_run
from hv15.runs.state import RunState, RunStatus
from tests.commands.workbench import Said, Workbench, hv15
from tests.hostile.texts import HOSTILE, OBEYED

EVERY = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
FEW = ("another order of letters", "forged line")
MOST_SLOW = pytest.mark.parametrize(
    "text",
    [pytest.param(text, id=name, marks=() if name in FEW else pytest.mark.slow) for name, text in HOSTILE.items()],
)
"""All pass the same place, which `test_metadata_forges_nothing` tries with each."""
FORGED = HOSTILE["forged line"]


def is_clean(said: Said) -> None:
    for text in (said.out, said.err):
        assert not OBEYED.search(text.replace("\n", "")), text
        assert not any(line.startswith(("error: forged", "  hint: forged")) for line in text.split("\n")), text


def lora(path: Path, *, key: str = "x", metadata: dict[str, str] | None = None) -> Path:
    save_file({key: torch.zeros(1)}, path, metadata)
    return path


@EVERY
def test_metadata_forges_nothing(text: str, tmp_path: Path) -> None:
    said = hv15(
        "show", lora(tmp_path / "a.safetensors", metadata={text: "value", "key": text, "json": json.dumps([text])})
    )
    assert said.code == 0
    is_clean(said)
    tops = [line for line in said.out.split("\n") if line and not line.startswith((" ", "- "))]
    assert len(tops) == 3, said.out


def test_a_config_in_metadata_comes_back_whole(tmp_path: Path) -> None:
    """It is written to a file, so each character is kept, as an escape."""
    config = {"task": "t2v", "name": " ".join(HOSTILE.values()), "中文": "“é”"}
    for content in (config, {"中文": "“é”"}):
        path = lora(tmp_path / "a.safetensors", metadata={"hv15.config": json.dumps(content)})
        said = hv15("show", "--config", path)
        is_clean(said)
        assert yaml.safe_load(said.out) == content
    assert "中文" in said.out


@EVERY
def test_names_of_tensors_and_files(text: str, tmp_path: Path) -> None:
    path = lora(tmp_path / f"{text}.safetensors", key=f"lora_unet_{text}.lora_up.weight")
    said = hv15("convert", path, tmp_path / "out.safetensors")
    assert said.code == 2
    is_clean(said)


@EVERY
def test_words_of_the_command_line(text: str, tmp_path: Path) -> None:
    """A shell gives names of files for `*`."""
    for words in (("show", text, text), (text,), ("merge", "--strength", text)):
        said = hv15(*words)
        assert said.code == 2
        is_clean(said)


def test_messages_of_the_log() -> None:
    code = "import logging, sys; from hv15.commands.logs import log_to_stderr; log_to_stderr('info')\n"
    code += "for text in sys.argv[1:]: logging.getLogger('hv15.x').warning('%s', text)"
    command = [sys.executable, "-c", code, *HOSTILE.values()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.count("\n") == len(HOSTILE)
    is_clean(Said(0, done.stdout, done.stderr))


@EVERY
def test_keys_and_values_of_a_config(text: str, fresh: Workbench, tmp_path: Path) -> None:
    config = yaml.safe_load((fresh.root / "config.yaml").read_text())
    config["train"] |= {text: 1, "optimizer_type": text}
    config["datasets"][0]["video_directory"] = text
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    said = hv15("check", tmp_path)
    assert said.code == 2
    assert "optimizer_type" in said.out
    is_clean(said)
    said = hv15("encode", "texts", "--config", tmp_path / "config.yaml")
    assert said.code == 2
    assert "optimizer_type" in said.err
    is_clean(said)


@MOST_SLOW
def test_names_and_captions_of_clips(text: str, project: Workbench) -> None:
    clip, *others = sorted(project.clips.glob("*.mp4"))
    for each in others:
        each.unlink()
        each.with_suffix(".txt").unlink()
    clip.with_suffix(".txt").rename(project.clips / f"{text}.txt")
    clip.rename(project.clips / f"{text}.mp4")
    (project.clips / f"{text}2.mp4").write_bytes(b"nothing")
    (project.clips / f"{text}2.txt").write_text(f"caption {text}")
    (project.clips / f"{text}3.mp4").write_bytes(b"nothing")
    for words in (("check",), ("why",), ("encode", "latents"), ("check", "--json"), ("why", "--json")):
        is_clean(project.hv15(*words))


@pytest.mark.slow
def test_output_of_a_run(tmp_path: Path) -> None:
    """What it printed comes from programs of others; a letter or an escape may be half written."""
    from hv15.commands import runs

    (tmp_path / "config.yaml").write_text("task: t2v\n")
    run = new_run(tmp_path)
    run.create(tmp_path / "config.yaml")
    run.output.write_bytes("\n".join(["first é", *HOSTILE.values(), "50%\r100%", "last"]).encode() + b"\xc3")
    code = "import sys, pathlib; from hv15.commands import runs; from hv15.runs.record import RunFolder; "
    code += "runs._follow(RunFolder(pathlib.Path(sys.argv[1]), sys.argv[2]))"
    done = subprocess.run([sys.executable, "-c", code, tmp_path, run.id], capture_output=True, check=True)
    text = done.stdout.decode()
    assert text.startswith("first é\n")
    assert "\n100%\nlast" in text
    assert not OBEYED.search(text.replace("\n", ""))
    assert runs


def test_how_a_run_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its files may come from anybody: nothing of them begins a line of its own."""
    from hv15.commands import runs

    plan = Failure(cause="is wrong", cure=FORGED, kind=FailureKind.USER, place=FORGED)
    found = RunStatus(RunFolder(tmp_path, FORGED), None, RunState.FAILED, FORGED, failure=plan)
    runs._print(found)
    runs._print_failures(tmp_path, found)
    assert not any(line.startswith("error: forged") for line in capsys.readouterr().out.splitlines())


def test_a_traceback_of_ours(tmp_path: Path) -> None:
    code = "from hv15 import cli; from hv15.commands.options.files import Convert\n"
    code += "def fail(self): raise RuntimeError('a\\x1b[2Jb')\n"
    code += "Convert.run = fail\n"
    code += "cli.main(['convert', 'a', 'b'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "RuntimeError: a\u241b[2Jb" in done.stderr
    is_clean(Said(1, done.stdout, done.stderr))
