"""`hv15 selftest`: reports that were made before, and the script for a bare machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from hv15.cli import main
from hv15.errors import INTERRUPTED, USER_ERROR, UserError
from hv15.plan.known_devices import read_rates
from hv15.records.fields import to_json
from hv15.records.selftest import Measured, read_report
from hv15.selftest.checks import MachineCheck
from hv15.selftest.stand import Stand
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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--minutes", "0"], "--minutes: found '0', expected a number above 0"),
        (["--minutes", "-1"], "--minutes: found '-1', expected a number above 0"),
        (["--minutes", "nan"], "--minutes: found 'nan', expected a number above 0"),
        (["--minutes", "ten"], "--minutes: found 'ten', expected a number above 0"),
        (["--device", "mps"], "--device: found 'mps', expected auto, cpu, cuda"),
    ],
)
def test_refused_arguments(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["selftest", *words])
    assert ended.value.code == USER_ERROR
    assert said in capsys.readouterr().err


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("hv15.commands.selftest.find_spec", lambda name: None if name in ("einops", "numpy") else name)
    assert main(["selftest"]) == USER_ERROR
    assert "the self-test needs einops, numpy: not installed" in capsys.readouterr().err


def _launches(stand: Stand) -> Measured:
    stand.learn(launch=1e-5)
    return Measured(rate=10.0, unit="us")


def _interrupted() -> Measured:
    raise KeyboardInterrupt


@pytest.fixture
def few_checks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Gives the self-test a check that measures a rate, and others after it."""

    def give(*others: MachineCheck) -> None:
        first = "time between small kernels"
        monkeypatch.setattr(
            "hv15.selftest.run.all_checks",
            lambda stand: [MachineCheck("machine", first, partial(_launches, stand)), *others],
        )

    return give


def test_ctrl_c_keeps_what_was_measured(
    few_checks: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An earlier picture would not belong to this report; the user's own files stay."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    out = tmp_path / "report"
    (out / "loop").mkdir(parents=True)
    (out / "selftest.png").touch()
    few_checks(MachineCheck("numbers", "x", _interrupted))
    assert main(["selftest", "--device", "cpu", "--out", str(out)]) == INTERRUPTED
    said = capsys.readouterr().out
    assert "\nmachine\n  time between small kernels" in said
    assert "1 ok in 0 s; not finished" in said
    report = read_report(out / "selftest.json")
    assert ([row.name for row in report.rows], report.finished) == (["time between small kernels"], False)
    assert "not finished" in (out / "selftest.txt").read_text()
    assert {path.name for path in out.iterdir()} == {"loop", "selftest.json", "selftest.txt", "rates.json"}
    assert read_rates(tmp_path / "config/hv15/devices/cpu.json").launch == 1e-5


def test_rates_are_kept_only_if_there_are_any_and_they_are_wanted(
    few_checks: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    few_checks()
    words = ["selftest", "--device", "cpu", "--out", str(tmp_path)]
    assert main([*words, "--report-only"]) == 0
    assert read_rates(tmp_path / "rates.json").launch == 1e-5
    assert main([*words, "--minutes", "0.001"]) == 0
    assert read_rates(tmp_path / "rates.json").is_empty
    assert not (tmp_path / "config").exists()


def test_a_free_gpu_is_taken_before_torch_looks_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []

    def run(*_: object) -> Path:
        assert taken == ["auto"]
        raise UserError("enough")

    monkeypatch.setattr("hv15.commands.selftest.take_gpu", taken.append)
    monkeypatch.setattr("hv15.selftest.run.selftest", run)
    assert main(["selftest", "--out", str(tmp_path / "report")]) == USER_ERROR
    assert taken == ["auto"]


@pytest.mark.slow
def test_the_script_for_a_bare_machine(tmp_path: Path) -> None:
    """Without time, so that everything is left out or skipped; it writes nowhere but into its folder."""
    out, elsewhere = tmp_path / "out folder", tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {**os.environ, "PYTHON": sys.executable, "MINUTES": "0.001", "OUT": str(out), "HOME": str(elsewhere)}
    environment.pop("WHEELS", None)
    done = subprocess.run(
        [ROOT / "bench" / "gpu_check.sh"], env=environment, cwd=elsewhere, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {row.state for row in read_report(out / "selftest.json").rows} <= {"left out", "skipped"}
    assert {path.name for path in out.iterdir()} == {
        "selftest.json", "selftest.txt", "rates.json", "output.txt", "environment.txt", "nvidia-smi.txt"
    }  # fmt: skip
    assert list(elsewhere.iterdir()) == []


@pytest.mark.slow
def test_the_script_installs_the_wheels_that_fit(tmp_path: Path) -> None:
    """One that cannot be installed keeps none of the others out; without a report there is nothing to plan with."""
    out, wheels, plain = tmp_path / "out", tmp_path / "some wheels", tmp_path / "python"
    wheels.mkdir()
    (wheels / "broken-1-py3-none-any.whl").write_text("no wheel")
    with zipfile.ZipFile(wheels / "fine-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("fine.py", "print('fine is here')")
        wheel.writestr("fine-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: fine\nVersion: 1\n")
        wheel.writestr("fine-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("fine-1.dist-info/RECORD", "")
    plain.write_text(
        '#!/bin/sh\n[ "$2" = pip ] || set -- -c "import fine; raise SystemExit(7)"\n' + f'exec {sys.executable} "$@"\n'
    )
    plain.chmod(0o755)
    done = subprocess.run(
        [ROOT / "bench" / "gpu_check.sh", out, wheels],
        env={**os.environ, "PYTHON": str(plain)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 7, done.stdout + done.stderr
    assert "broken-1-py3-none-any.whl cannot be installed" in done.stdout
    assert "fine is here" in done.stdout
    assert "hv15 plan" not in done.stdout
