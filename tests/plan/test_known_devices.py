"""Measured rates in the user's config folder."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from hv15.errors import UserError
from hv15.plan.devices import CONTEXT, FRAGMENTS, Device, find_device, recognised
from hv15.plan.known_devices import find_rates, measured_device, rates_folder, read_rates, store_rates
from hv15.records.device_rates import DeviceRates
from hv15.records.fields import to_json
from hv15.records.json_values import RecordError

GIB = 2**30
RATES = DeviceRates(device="NVIDIA GeForce RTX 4090", memory=24 * GIB, torch="2.9", products={"bfloat16": 1.5e14})
SLICE = replace(RATES, device="NVIDIA H100 80GB HBM3 MIG 1g.10gb", memory=10 * GIB)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "hv15" / "devices"


def test_a_device_is_found_by_either_name(folder: Path):
    assert store_rates(RATES) == folder / "nvidiageforcertx4090.json"
    assert find_rates(recognised("NVIDIA GeForce RTX 4090", 24 * GIB)) == (RATES, "")
    assert find_rates(find_device("4090")) == (RATES, "")
    assert find_rates(find_device("4080")) == (None, "")
    assert find_rates(recognised("NVIDIA GeForce RTX 4090", 12 * GIB)) == (None, ""), "another model of that name"


def test_a_slice_is_not_the_whole_gpu():
    store_rates(SLICE)
    assert find_rates(find_device("h100")) == (None, "")
    assert find_rates(recognised(SLICE.device, SLICE.memory)) == (SLICE, "")


def test_the_cpu():
    rates = DeviceRates(device="cpu", memory=16 * GIB, torch="2.9", products={"float32": 1e11})
    store_rates(rates)
    assert find_rates(Device("this machine's CPU", 16 * GIB, None, gpu=False)) == (rates, "")
    assert not measured_device(rates).gpu


def test_a_shorter_test_keeps_what_a_longer_one_measured():
    store_rates(replace(RATES, launch=5e-6, utilisation={"train": 0.4}))
    store_rates(replace(RATES, torch="2.10", bandwidth=9e11, utilisation={"denoise": 0.5}))
    expected = replace(RATES, torch="2.10", bandwidth=9e11, launch=5e-6, utilisation={"train": 0.4, "denoise": 0.5})
    assert find_rates(find_device("4090")) == (expected, "")


def test_without_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert rates_folder() == tmp_path / "home/.config/hv15/devices"

    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    assert find_rates(find_device("4090")) == (None, "")
    with pytest.raises(UserError, match="no home folder"):
        store_rates(RATES)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not JSON"),
        ("[]", "expected a JSON object"),
        (json.dumps({**to_json(RATES), "version": 99}), "of version 99"),
        (json.dumps({**to_json(RATES), "bandwidth": -1}), "bandwidth: expected a number above 0"),
        (json.dumps({**to_json(RATES), "products": {"bfloat16": float("nan")}}), "products.bfloat16"),
        (json.dumps({**to_json(RATES), "fragments": 1}), "fragments"),
        pytest.param(" " * 2**23, "too large", id="too large"),
    ],
)
def test_a_damaged_or_newer_file_is_one_note(folder: Path, content: str, words: str):
    path = store_rates(RATES)
    path.write_text(content)
    rates, note = find_rates(find_device("4090"))
    assert rates is None
    assert words in note
    assert str(path) in note
    assert "rates are assumed" in note
    assert "\n" not in note
    assert find_rates(find_device("4080")) == (None, ""), "it does not concern other devices"


def test_the_rates_in_a_report(tmp_path: Path):
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"version": 1, "device": "some words", "rates": to_json(RATES)}))
    assert read_rates(path) == RATES


def test_links_and_pipes_are_not_followed(folder: Path, tmp_path: Path):
    path = store_rates(RATES)
    other = tmp_path / "other.json"
    path.rename(other)
    path.symlink_to(other)
    assert "is a link" in find_rates(find_device("4090"))[1]
    before = other.read_bytes()
    store_rates(replace(RATES, launch=1e-6))
    assert (other.read_bytes(), path.is_symlink()) == (before, False)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(RecordError):
        read_rates(path)


def test_measured_allowances_replace_the_assumed_ones():
    assumed = find_device("4090")
    assert (assumed.context, assumed.fragments(10 * GIB, 4 * GIB)) == (CONTEXT, int(FRAGMENTS * 6 * GIB))
    found = measured_device(replace(RATES, context=123, fragments=0.2))
    assert (found.context, found.fragments(8 * GIB, 4 * GIB)) == (123, 2 * GIB), "a fifth of what is held"
