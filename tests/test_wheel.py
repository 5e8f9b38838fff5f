"""A built wheel has what the workflow needs, and works in an empty folder, without the clone.

.ci/run does the same with a wheel that is installed into a new environment, and there runs the jobs too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from hv15 import home
from hv15.config import preset_names

REPOSITORY = Path(__file__).parents[1]
FILES = "hv15/workflow/files"
ACTIVATED = f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}"
"""The search path of a shell in which this interpreter's environment is active."""
DASHBOARD = """
import asyncio, tui
from pathlib import Path
from tui.app import Dashboard

async def show():
    app = Dashboard(Path("demo/config.yaml").absolute())
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.pause()
        print(app.current_mode, tui.__file__)

asyncio.run(show())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this tree."""
    [path] = WheelBuilder(str(REPOSITORY)).build(directory=str(tmp_path_factory.mktemp("dist")), versions=["standard"])
    return Path(path)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files, as pip lays them out."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def empty(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder in which `hv15 new` made a project of the demo."""
    folder = tmp_path_factory.mktemp("empty")
    python(installed, folder, "-m", "hv15.cli", "new", "demo", "--preset", "demo")
    return folder


def python(installed: Path, cwd: Path, *words: str, code: int = 0, path: str = ACTIVATED) -> str:
    """Run Python where hv15 comes from the wheel alone, and return what was printed."""
    done = subprocess.run(
        [sys.executable, "-P", *words],
        cwd=cwd,
        env={"PYTHONPATH": str(installed), "PATH": path, "HOME": str(cwd)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def tracked(*names: str) -> set[str]:
    """The files of the repository under these names, without what git ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *names],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return {name for name in listed.stdout.splitlines() if (REPOSITORY / name).is_file()}


def test_it_has_the_packages_and_the_workflow_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        found = {name for name in file.namelist() if ".dist-info/" not in name}
    workflow = tracked("Snakefile", "rules", "profiles") - {"rules/demo.smk"}
    assert found == tracked("hv15", "tui") | {f"{FILES}/{name}" for name in workflow} | {"hv15/commit.txt"}
    assert {f"hv15/config/presets/{name}.yaml" for name in preset_names()} < found
    assert wheel.stat().st_size < 20e6


def test_it_tells_the_commit_that_it_was_built_from(installed: Path, tmp_path: Path) -> None:
    words = "from hv15.home import *; print(clone(), git_commit(), repr(uncommitted_changes()))"
    said = python(installed, tmp_path, "-c", words).split()
    assert said == ["None", str(home.git_commit()), repr(home.uncommitted_changes())]
    assert len(said[1]) == 40


def test_its_files_are_those_of_the_repository(installed: Path) -> None:
    for path in (installed / FILES).rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (REPOSITORY / path.relative_to(installed / FILES)).read_bytes()


def test_hv15_names_its_snakefile(installed: Path, tmp_path: Path) -> None:
    assert Path(python(installed, tmp_path, "-m", "hv15.cli", "snakefile").strip()) == installed / FILES / "Snakefile"


@pytest.mark.slow
def test_snakemake_plans_with_that_snakefile(installed: Path, empty: Path) -> None:
    """As a run does, below, from within hv15."""
    snakefile = str(installed / FILES / "Snakefile")
    said = python(installed, empty, "-m", "snakemake", "-s", snakefile, "-d", "demo", "-n", "results/lora.safetensors")
    assert "Copying the toy models that come with hv15" in said
    assert "Training the LoRA" in said
    assert f"workflow specific profile {installed / FILES}/profiles/default" in said


@pytest.mark.slow
def test_a_run_finds_it_too(installed: Path, empty: Path) -> None:
    """Its one job copies the toy models that the wheel brings."""
    name = "dit.safetensors"
    said = python(installed, empty, "-m", "hv15.cli", "run", "demo", "--follow", "--target", f"models/demo/{name}")
    assert "finished: 1 of 1 jobs" in said
    assert (empty / "demo/models/demo" / name).read_bytes() == (REPOSITORY / "hv15/demo/base" / name).read_bytes()


@pytest.mark.slow
def test_no_environment_has_to_be_activated(installed: Path, empty: Path) -> None:
    """The jobs find the `hv15` beside the interpreter that snakemake runs in."""
    python(installed, empty, "-m", "hv15.cli", "new", "other", "--preset", "demo")
    words = ("-s", str(installed / FILES / "Snakefile"), "-d", "other", "models/demo/vae.safetensors")
    python(installed, empty, "-m", "snakemake", *words, path=os.defpath)
    assert (empty / "other/models/demo/vae.safetensors").is_file()


@pytest.mark.slow
def test_why_and_check_need_no_more(installed: Path, empty: Path) -> None:
    """Of a project without models; .ci/run checks one that has some."""
    python(installed, empty, "-m", "hv15.cli", "new", "fresh", "--preset", "demo")
    assert "train" in python(installed, empty, "-m", "hv15.cli", "why", "fresh")
    assert "error" not in python(installed, empty, "-m", "hv15.cli", "check", "fresh")


@pytest.mark.slow
def test_the_dashboard_opens(installed: Path, empty: Path) -> None:
    assert python(installed, empty, "-c", DASHBOARD).split() == ["run", str(installed / "tui/__init__.py")]


@pytest.mark.slow
def test_conda_environments_need_a_clone(installed: Path, empty: Path) -> None:
    snakefile = str(installed / FILES / "Snakefile")
    said = python(installed, empty, "-m", "snakemake", "-s", snakefile, "-d", "demo", "-n", "--sdm", "conda", code=1)
    assert "--sdm conda: the rules' environment is built from a clone of hv15" in said
    assert "Traceback" not in said


def test_it_is_no_clone(installed: Path, tmp_path: Path) -> None:
    """So a LoRA of it names no commit, though the environment may lie in somebody's own repository."""
    assert python(installed, tmp_path, "-c", "from hv15.home import clone; print(clone())").strip() == "None"
