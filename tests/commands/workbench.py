"""A small project on which `hv15` commands run in this process, and what is expected of a refusal."""

from __future__ import annotations

import contextlib
import io
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hv15 import cli
from hv15.choices import ROLES
from hv15.demo.layout import DEMO_FILES
from hv15.project import Project
from hv15.records.outputs import LATENTS, VIDEO
from hv15.records.paths import ProjectPaths
from hv15.workflow import make_planner
from tests.workflow.project import ProjectFolder, small_config

LORA = "results/train.safetensors"


@dataclass(frozen=True)
class Said:
    """What one command returned and printed."""

    code: int
    out: str
    err: str


class Workbench(ProjectFolder):
    """A project folder and the `hv15` commands on it."""

    def hv15(self, *words: str | Path) -> Said:
        """Run a command of the project."""
        return hv15(*words, "--config", self.root / "config.yaml")

    def does(self, *words: str | Path) -> Said:
        """Run a command that must succeed."""
        said = self.hv15(*words)
        assert said.code == 0, said.err
        return said

    def refuses(self, *words: str | Path, naming: tuple[str, ...]) -> Said:
        """Run a command that must end in one clear error, and lose nothing that was there."""
        before = self.files()
        said = self.hv15(*words)
        is_a_refusal(said, naming)
        self.still_has(before)
        return said

    def files(self) -> dict[str, bytes]:
        """Every file of the project with its content."""
        paths = (path for path in self.root.rglob("*") if path.is_file())
        return {str(path.relative_to(self.root)): path.read_bytes() for path in paths}

    def still_has(self, before: dict[str, bytes]) -> None:
        """Check that no file was lost or changed and that no half-written one was left.

        What is known about media may grow, and metrics continue from the last state.
        """
        now = self.files()
        learnt = {"cache/index.json", "cache/probed.json", "cache/fingerprints.json", "results/train/metrics.jsonl"}
        assert before.keys() - now.keys() == set()
        assert [name for name in before.keys() - learnt if now[name] != before[name]] == []
        assert [name for name in now.keys() - before.keys() if ".tmp" in name] == []

    def items(self, kind: str) -> dict[Path, int]:
        """The encoded items and when each was written."""
        found = (self.root / "cache" / "store" / kind).glob("*/??/*.safetensors")
        return {path: path.stat().st_mtime_ns for path in found}

    def encode(self, **settings: object) -> None:
        """Encode everything, with other settings of `cache` if some are given."""
        if settings:
            self.set(cache=settings)
        for kind in ("latents", "texts", *(["masks"] if self.project.masks.needed else [])):
            self.does("encode", kind)

    def plan(self) -> None:
        """Write the specs of all stages, as a workflow does when it starts."""
        make_planner(self.project, dry_run=False).prepare()

    def spec(self, stage: str) -> Path:
        """Where the planner writes the spec of a stage."""
        return self.paths.spec(stage)

    def train(self) -> None:
        self.plan()
        self.does("train", "--spec", self.spec("train"), "--out", self.root / LORA)

    def sample(self, name: str = "one") -> None:
        self.plan()
        latents, words = LATENTS.path(self.paths, name), ("--lora", self.root / LORA)
        self.does("stage", "denoise", "--spec", self.spec(f"sample_latents.{name}"), *words, "--out", latents)
        words = ("--latents", latents, "--out", VIDEO.path(self.paths, name))
        self.does("stage", "decode", "--spec", self.spec(f"sample_video.{name}"), *words)

    @property
    def project(self) -> Project:
        """The project as it is on disk now."""
        return Project(self.root / "config.yaml")

    @property
    def paths(self) -> ProjectPaths:
        return ProjectPaths(self.root)

    @property
    def samples(self) -> Path:
        return self.paths.samples


def hv15(*words: str | Path) -> Said:
    """Run the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as stop:  # argparse's own refusals
            code = int(stop.code or 0)
    return Said(code, out.getvalue(), err.getvalue())


def is_a_refusal(said: Said, naming: tuple[str, ...]) -> None:
    """Exit code 2, one error with a hint, no traceback, and the given words in it."""
    assert said.code == 2, said.out + said.err
    assert said.err.count("error: ") == 1, said.err
    assert "\n  hint: " in said.err, said.err
    assert "Traceback" not in said.err
    for words in naming:
        assert words in said.err, said.err


@contextlib.contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """No file may grow past `limit` bytes: writes fail as on a full disk, in the kernel, whoever writes.

    (Python ignores SIGXFSZ, so the write returns an error.)
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def config(models: Path) -> dict[str, Any]:
    """A small t2v project whose model files are given by path."""
    return small_config({role: str(models / DEMO_FILES[role]) for role in ROLES})
