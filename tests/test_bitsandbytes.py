"""bitsandbytes comes quietly, without code from the Hub, and only where it is used."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.forked import forked

# What the package does on CPUs with bfloat16 units as it is imported.
STAND_IN = """
import logging
try:
    from kernels import get_kernel
    get_kernel()
except Exception as error:
    logging.getLogger("bitsandbytes.backends.cpu.ops").warning("Failed to load CPU gemm_4bit_forward: %s", error)
"""
KERNELS = "def get_kernel(*_, **__): print('fetched')"


def said(code: str, folder: Path) -> str:
    """What a new process prints, on both streams; packages in the folder are found first."""
    with (folder / "said").open("w+b") as file:
        process = forked(run, code, str(folder), stderr=file.fileno())
        process.join()
        file.seek(0)
        printed = file.read().decode()
    assert process.exitcode == 0, printed
    return printed


def run(code: str, folder: str) -> None:
    """Run Python code in a process that has torch, and not what is tested."""
    assert "bitsandbytes" not in sys.modules
    sys.modules.pop("kernels", None)  # transformers looks for it
    os.dup2(2, 1)
    sys.path.insert(0, folder)
    exec(code, {})


def make_package(folder: Path, name: str, code: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(code)


@pytest.mark.parametrize(
    ("package", "kernels"),
    [
        pytest.param("as installed", True, marks=pytest.mark.slow),
        pytest.param("as installed", False, marks=pytest.mark.slow),
        ("a stand-in", True),
        ("a stand-in", False),
    ],
)
def test_it_says_nothing_and_fetches_nothing(tmp_path: Path, package: str, kernels: bool) -> None:
    if package == "a stand-in":
        make_package(tmp_path, "bitsandbytes", STAND_IN)
        (tmp_path / "bitsandbytes" / "optim.py").touch()
        assert said("import bitsandbytes", tmp_path) != ""
    if kernels:
        make_package(tmp_path, "kernels", KERNELS)
    code = "from hv15.bitsandbytes import bitsandbytes; print(bitsandbytes('optim').__name__)"
    assert said(code, tmp_path) == "bitsandbytes.optim\n"


@pytest.mark.slow
def test_so_it_does_if_another_package_imports_it(tmp_path: Path) -> None:
    make_package(tmp_path, "kernels", KERNELS)
    code = "from hv15.train.optimizer_classes import optimizer_class; print(optimizer_class('Adafactor').__name__)"
    assert said(code, tmp_path) == "Adafactor\n"


def test_kernels_can_be_imported_before_and_after(tmp_path: Path) -> None:
    make_package(tmp_path, "bitsandbytes", STAND_IN)
    (tmp_path / "bitsandbytes" / "optim.py").touch()
    make_package(tmp_path, "kernels", KERNELS)
    code = "from hv15.bitsandbytes import bitsandbytes; bitsandbytes('optim'); import kernels; kernels.get_kernel()"
    assert said(code, tmp_path) == said(f"import kernels; {code}", tmp_path) == "fetched\n"


def test_who_does_not_use_it_does_not_import_it(tmp_path: Path) -> None:
    modules = "hv15.plan.report, hv15.train.run, hv15.sample.sampling, hv15.models.text, hv15.models.weights.quantised"
    assert said(f"import sys, {modules}; print('bitsandbytes' in sys.modules)", tmp_path) == "False\n"
