"""`hv15 run` on a project that cannot run: said at once, with an exit code, and no process is started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hv15.errors import UserError
from hv15.runs import control
from tests.commands.workbench import Workbench, hv15, is_a_refusal


def settings(**sections: Any) -> Callable[[Workbench], None]:
    return lambda project: project.set(**sections)


def unknown_key(project: Workbench) -> None:
    project.set(train={"learning_rat": 1})


def no_caption(project: Workbench) -> None:
    next(iter(project.clips.glob("*.txt"))).unlink()


def torn_image(project: Workbench) -> None:
    (project.root / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    project.set(task="i2v", sample={"prompts": [{"name": "one", "prompt": "a circle", "image_path": "torn.png"}]})
    models = Path(project.config["models"]["vae"]).parent
    project.set(models={"image_encoder": str(models / "siglip.safetensors")})


BROKEN: dict[Callable[[Workbench], None], str] = {
    unknown_key: "train.learning_rat: unknown key",
    settings(models={"vae": "gone.safetensors"}): "gone.safetensors does not exist",
    settings(datasets=[{"video_directory": "nowhere"}]): "nowhere: does not exist",
    no_caption: "no caption, expected in",
    torn_image: "torn.png: cannot be read as an image",
    settings(train={"exclude_patterns": ["nothing"]}): "'nothing' matches none of the",
    settings(train={"optimizer_args": {"betas": [0.9]}}): "AdamW does not accept {'betas': (0.9,)}",
    settings(train={"network_weights": "config.yaml"}): "config.yaml: not a safetensors file",
}


@pytest.mark.parametrize("damage", BROKEN)
@pytest.mark.parametrize("words", [(), ("--follow",)])
def test_a_broken_project(
    project: Workbench, damage: Callable[[Workbench], None], words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "start", lambda *_: pytest.fail("a process was started"))
    damage(project)
    said = project.hv15("run", *words)
    assert said.code == 2
    assert BROKEN[damage] in said.err
    assert "Traceback" not in said.err
    assert not (project.root / ".hv15" / "runs").exists()


def test_settings_for_snakemake_may_mend_it(project: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they make of the file, its own planning tells."""

    def start(*_: object) -> None:
        raise UserError("started")

    monkeypatch.setattr(control, "start", start)
    project.set(train={"exclude_patterns": ["nothing"]})
    words = ("--snakemake", "--config", "train={exclude_patterns: []}")
    assert "error: started" in hv15("run", project.root, *words).err
    assert "error: started" not in hv15("run", project.root).err
    project.set(train={"exclude_patterns": []})
    assert "error: started" in hv15("run", project.root).err


def test_a_dry_run_does_not_pass_over_words_for_snakemake(project: Workbench) -> None:
    words = ("--snakemake", "--config", "train={network_dim: 8}")
    said = hv15("run", project.root, "--dry-run", *words)
    is_a_refusal(said, ("--snakemake --config 'train={network_dim: 8}'",))
    assert not said.out


def test_a_dry_run_is_no_run(project: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "start", lambda *_: pytest.fail("a process was started"))
    said = hv15("run", project.root, "--snakemake", "-n")
    assert said.code == 2
    assert "--dry-run` shows what would run" in said.err


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("--sdm apptainer --cores=1",), "unrecognized arguments: --sdm apptainer --cores=1"),
        (("--cores",), "--cores/-c: expected"),
        (("--executor", "moon"), "invalid choice: 'moon'"),
    ],
)
def test_options_that_snakemake_does_not_have(
    project: Workbench, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], found: str
) -> None:
    monkeypatch.setattr(control, "start", lambda *_: pytest.fail("a process was started"))
    said = hv15("run", project.root, "--snakemake", *words)
    is_a_refusal(said, (found, "snakemake --help"))
