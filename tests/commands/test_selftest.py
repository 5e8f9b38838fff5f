"""`hv15 selftest`: reports that were made before, and the script for a bare machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hv15.cli import main
from hv15.errors import USER_ERROR, UserError
from hv15.records.fields import to_json
from hv15.records.selftest import read_report
from tests.records.test_selftest import REPORT

ROOT = Path(__file__).parents[2]


@pytest.fixture
def report(tmp_path: Path) -> str:
    path = tmp_path / "selftest.json"
    path.write_text(json.dumps(to_json(REPORT)))
    return str(path)


def test_two_reports(report: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--compare", report, report]) == 0
    assert "1.00" in capsys.readouterr().out


def test_a_line_for_readme(report: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--markdown-row", report]) == 0
    assert capsys.readouterr().out.startswith("| NVIDIA H100")


def test_what_cannot_be_compared(report: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.json"
    other.write_text("{}")
    assert main(["selftest", "--compare", report, str(other)]) == USER_ERROR
    assert "not a report of this hv15's self-test" in capsys.readouterr().err
    assert main(["selftest", "--compare", report]) == USER_ERROR
    assert "expected two reports, found 1" in capsys.readouterr().err


def test_a_device_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "--device", "cuda:77", "--out", str(tmp_path / "report")]) == USER_ERROR
    assert "error: --device cuda:77: this machine has" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_a_free_gpu_is_taken_before_torch_looks_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []

    def run(*_: object) -> Path:
        assert taken == ["auto"]
        raise UserError("enough")

    monkeypatch.setattr("hv15.commands.selftest.take_gpu", taken.append)
    monkeypatch.setattr("hv15.selftest.run.selftest", run)
    assert main(["selftest", "--out", str(tmp_path / "report")]) == USER_ERROR
    assert taken == ["auto"]


@pytest.mark.parametrize("minutes", ["-1", "nan"])
def test_minutes_that_are_no_time(minutes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", f"--minutes={minutes}", "--out", str(tmp_path / "report")]) == USER_ERROR
    assert f"error: --minutes {minutes}: expected 0 or more" in capsys.readouterr().err


@pytest.mark.slow
def test_the_script_for_a_bare_machine(tmp_path: Path) -> None:
    """Without time, so that everything is left out or skipped; it writes nowhere but into its folder."""
    out, elsewhere = tmp_path / "out folder", tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {**os.environ, "PYTHON": sys.executable, "MINUTES": "0", "OUT": str(out), "HOME": str(elsewhere)}
    environment.pop("WHEELS", None)
    done = subprocess.run(
        [ROOT / "bench" / "gpu_check.sh"], env=environment, cwd=elsewhere, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {row.state for row in read_report(out / "selftest.json").rows} <= {"left out", "skipped"}
    assert {"selftest.txt", "rates.json", "output.txt", "environment.txt"} <= {path.name for path in out.iterdir()}
    assert not (out / "scratch").exists()
    assert list(elsewhere.iterdir()) == []
