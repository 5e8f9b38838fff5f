"""The self-test on this machine's processor."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from hv15.models import attention as attention_module
from hv15.plan.known_devices import read_rates
from hv15.records.device_rates import read_device_rates
from hv15.records.fields import from_json, to_json
from hv15.records.selftest import SelftestReport, read_report
from hv15.selftest import encoders, steps
from hv15.selftest.checks import MachineCheck
from hv15.selftest.loop import loop_checks
from hv15.selftest.machine import machine_checks
from hv15.selftest.numbers import number_checks
from hv15.selftest.planned import PlannedCosts
from hv15.selftest.run import all_checks, reports
from hv15.selftest.stand import Stand
from hv15.selftest.training import Training
from tests.workflow.project import environment

ROOT = Path(__file__).parents[2]
ALLOWED = "torch pydantic pydantic_core safetensors einops numpy typing_extensions annotated_types typing_inspection"
BLOCKER = f"""
import sys
allowed = set({ALLOWED!r}.split()) | set(sys.stdlib_module_names) | {{"hv15"}}
allowed |= set("sympy mpmath filelock fsspec jinja2 markupsafe networkx triton nvidia functorch torchgen".split())
class Few:
    def __init__(self, finders):
        self.finders = finders
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in allowed or top.startswith("_"):
            return next(filter(None, (finder.find_spec(name, path, target) for finder in self.finders)), None)
sys.meta_path[:] = [Few(list(sys.meta_path))]
"""
"""Only what torch and the four packages bring can be imported."""


def named(checks: list[MachineCheck], *beginnings: str) -> list[MachineCheck]:
    return [check for check in checks if check.name.startswith(beginnings)]


def last(stand: Stand, checks: list[MachineCheck]) -> SelftestReport:
    *_, report = reports(stand, checks)
    assert report.finished
    return report


@pytest.mark.slow
def test_memory_of_a_step_is_what_the_plan_says(stand: Stand) -> None:
    report = last(stand, named(steps.main_checks(stand), "training step, 128x96"))
    (row,) = report.rows
    assert row.state == "ok", row.message
    assert row.measured.seconds
    assert row.measured.memory == pytest.approx(row.measured.planned_memory, rel=0.01)


@pytest.mark.slow
def test_numbers_of_the_machine_become_rates(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "true")  # which starts faster than Python
    names = ("products in float32", "time between", "copy to the device, p", "start")
    report = last(stand, named(machine_checks(stand), *names))
    assert [row.state for row in report.rows] == ["ok", "ok", "skipped", "ok"]
    rates = report.rates
    assert rates.device == "cpu"
    assert rates.products["float32"] == pytest.approx(report.rows[0].measured.rate * 1e12)  # type: ignore[operator]
    assert rates.launch == pytest.approx(report.rows[1].measured.rate / 1e6)  # type: ignore[operator]
    assert rates.start == report.rows[3].measured.seconds
    assert rates.utilisation == {}, "tiny models say nothing about the real ones"
    assert read_device_rates(json.loads(json.dumps(to_json(rates)))) == rates


def test_a_report_is_there_after_each_check(stand: Stand) -> None:
    checks = named(number_checks(stand), "attention: sdpa", "quantize: fp8: ")
    for count, report in enumerate(islice(reports(stand, checks), 3)):
        assert len(report.rows) == count
        assert not report.finished
        assert from_json(SelftestReport, json.loads(json.dumps(to_json(report)))) == report


def test_a_wrong_kernel_is_found(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that forgets the scale of the scores; what does not use it is right."""
    right = attention_module.sdpa
    monkeypatch.setattr(
        "hv15.selftest.layers.pick_attention",
        lambda *_, **__: replace(attention_module.Attention(), kernel=lambda q, k, v: right(q * 1.01, k, v)),
    )
    report = last(stand, named(number_checks(stand), "attention: sdpa", "quantize: fp8: the format"))
    assert [row.state for row in report.rows] == ["failed", "ok"]
    assert "is allowed" in report.rows[0].message


@pytest.mark.slow
def test_changed_numbers_are_found_where_bits_must_be_equal(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that comes back from the host with one weight changed."""
    from hv15.models.weights.transfers import HostTransfers

    begin = HostTransfers.begin

    def damage(self: HostTransfers, target: torch.Tensor, source: torch.Tensor) -> None:
        begin(self, target, source)
        if target.dtype == torch.uint8:
            target[2] ^= 1

    monkeypatch.setattr(HostTransfers, "begin", damage)
    report = last(stand, named(number_checks(stand), "swap: equal bits", "checkpointing: equal"))
    assert {row.name: row.state for row in report.rows} == {
        "checkpointing: equal bits": "ok",
        "swap: equal bits": "failed",
    }


@pytest.mark.slow
def test_two_runs_of_a_step_are_compared_to_the_bit(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of two differs in the last bit of its weights."""
    checks, runs = named(number_checks(stand), "two runs"), itertools.count()
    weights = Training.weights

    def other(made: Training) -> torch.Tensor:
        found = weights(made)
        return found if next(runs) % 2 == 0 else torch.nextafter(found, found + 1)

    monkeypatch.setattr(Training, "weights", other)
    (row,) = last(stand, checks).rows
    assert (row.state, row.message[:17]) == ("failed", "not the same bits")


@pytest.mark.slow
def test_two_runs_of_a_step_are_the_same(stand: Stand) -> None:
    assert [row.state for row in last(stand, named(number_checks(stand), "two runs")).rows] == ["ok"]


@pytest.mark.slow
def test_a_stopped_training_goes_on(stand: Stand) -> None:
    (row,) = last(stand, named(loop_checks(stand), "stop by a signal")).rows
    assert (row.state, row.measured.error) == ("ok", 0.0), row.message
    assert "stopped after step" in row.measured.note
    assert list(stand.folder.iterdir()) == []


def test_a_step_that_is_not_finite_changes_nothing(stand: Stand) -> None:
    (row,) = last(stand, named(loop_checks(stand), "a step that")).rows
    assert (row.state, row.measured.error) == ("ok", 0.0), row.message


def run_python(code: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BLOCKER + code, *words],
        env={**environment(), "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_all_is_imported_with_few_packages() -> None:
    done = run_python("import hv15.selftest.__main__, hv15.selftest.run, hv15.commands.selftest")
    assert (done.returncode, done.stderr) == (0, "")


WHOLE_S = 240
"""Seconds of the processor that a run of everything may take: two minutes on two cores."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of everything, with few packages."""
    folder = tmp_path_factory.mktemp("report")
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_CPU, ({WHOLE_S}, {WHOLE_S}))"
    code = f"{limit}; from hv15.cli import main; sys.exit(main(['selftest', *sys.argv[1:]]))"
    done = run_python(code, "--device", "cpu", "--full", "--out", str(folder), XDG_CONFIG_HOME=str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_everything_runs_with_few_packages(whole: Path) -> None:
    report = read_report(whole / "selftest.json")
    assert report.finished
    assert not report.of("failed")
    assert not report.of("left out")
    missing = {row.message for row in report.of("skipped")}
    assert "bitsandbytes: not installed" in missing
    assert "transformers: not installed" in missing
    planned = [row for row in report.rows if row.measured.planned_memory]
    assert len(planned) > 8
    for row in planned:
        assert row.measured.memory == pytest.approx(row.measured.planned_memory, rel=0.02), row.name
    assert {path.name for path in whole.iterdir()} >= {"selftest.json", "selftest.txt", "rates.json"}
    assert read_rates(whole / "hv15/devices/cpu.json") == report.rates


def test_names_are_unique(stand: Stand) -> None:
    names = [(check.part, check.name) for check in all_checks(stand)]
    assert len(set(names)) == len(names)
    assert {part for part, _ in names} == {"machine", "numbers", "full size", "loop"}


@pytest.mark.slow
def test_plans_are_computed_in_another_process(stand: Stand) -> None:
    """As on a GPU: they are the same as those of this one, and are there when they are asked for."""
    (work,) = [each for each in encoders.planned_works(stand) if each.stage == "encode texts"]
    plans = PlannedCosts([work])
    try:
        assert plans.of(work) == work.plan()
    finally:
        plans.close()


@pytest.mark.slow
def test_encoders_on_the_processor_equal_themselves(stand: Stand) -> None:
    for row in last(stand, named(encoders.number_checks(stand), "VAE: strips", "VAE: encode")).rows:
        assert row.state == "ok", row


@pytest.mark.slow
def test_inputs_that_stay_behind_are_found(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded passes whose inputs are not those of the step."""
    checks = named(number_checks(stand), "CUDA graphs")
    assert [row.state for row in last(stand, checks).rows] == ["ok"]
    monkeypatch.setattr("hv15.sample.graphs._Recording.take", lambda *_: None)
    (row,) = last(stand, checks).rows
    assert (row.state, row.message[:17]) == ("failed", "not the same bits")


def test_quoted_texts_on_the_processor_equal_themselves(stand: Stand) -> None:
    (row,) = last(stand, named(encoders.number_checks(stand), "ByT5")).rows
    assert (row.state, row.measured.error) == ("ok", 0.0), row
