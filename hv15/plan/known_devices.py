"""Devices that a self-test has measured: their rates, as files in the user's config folder. Loads no torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hv15.atomic import write_json
from hv15.errors import UserError
from hv15.plan.devices import Device, listed, plain_name, recognised
from hv15.records.device_rates import DeviceRates, read_device_rates
from hv15.records.fields import to_json
from hv15.records.json_values import RecordError, as_object, parse_object, report_content
from hv15.user_folders import config_folder

SAME_MEMORY = 0.1
"""A device is the one that was measured if their memory differs by less than this part; a slice of a GPU is not."""


def rates_folder() -> Path | None:
    """Return the folder of this user's measured devices; None if the user has no home."""
    folder = config_folder()
    return None if folder is None else folder / "devices"


def store_rates(rates: DeviceRates) -> Path:
    """Keep the rates of a device for plans, instead of older ones of it, and return the file.

    A rate that was not measured this time keeps its older value.

    Raises:
        UserError: the user has no home, or the file cannot be written.
    """
    folder = rates_folder()
    if folder is None:
        raise UserError("the user has no home folder to keep the rates in", hint="set XDG_CONFIG_HOME to a folder")
    path = folder / f"{plain_name(rates.device)}.json"
    try:
        known = read_rates(path)
    except (OSError, RecordError):
        known = None
    write_json(path, to_json(rates if known is None else _updated(known, rates)))
    return path


def find_rates(device: Device) -> tuple[DeviceRates | None, str]:
    """Return the rates that were measured on a device, and a note on a file that cannot be used.

    They are those of the device's own name, or of a GPU that is the same entry in the list of known ones, such as
    `NVIDIA GeForce RTX 4090` for `RTX 4090`.
    """
    folder = rates_folder()
    if folder is None:
        return None, ""
    name = plain_name(device.name if device.gpu else "cpu")
    try:
        files = sorted(folder.glob("*.json"), key=lambda path: (path.stem != name, path.name))
    except OSError:
        return None, ""
    for path in files:
        if path.stem != name and not _is_same_model(path.stem, device):
            continue
        try:
            rates = read_rates(path)
        except (OSError, RecordError) as error:
            return None, _unusable(path, error)
        if path.stem == name:
            same = _is_near(rates.memory, device.memory)
        else:
            entry = listed(device.name, device.memory)
            same = entry is listed(rates.device, rates.memory) and _is_near(rates.memory, entry.memory if entry else 0)
        if same:
            return rates, ""
    return None, ""


def read_rates(path: Path) -> DeviceRates:
    """Read a file of rates, or those in a self-test's report. A link is not followed, and a pipe is not waited for.

    Raises:
        OSError: it cannot be read.
        RecordError: it holds no rates, or those of a newer hv15.
    """
    found = parse_object(report_content(path, follow_link=False))
    return read_device_rates(as_object(found.get("rates", found)))


def measured_device(rates: DeviceRates) -> Device:
    """Return the device on which rates were measured."""
    if rates.device == "cpu":
        return Device("cpu", rates.memory, None, gpu=False, bfloat16=False, rates=rates)
    return replace(recognised(rates.device, rates.memory), rates=rates)


def _unusable(path: Path, error: OSError | RecordError) -> str:
    """Return a note on rates that cannot be used."""
    reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    return f"{path}: not used, rates are assumed ({reason}); `hv15 selftest` measures them again"


def _updated(known: DeviceRates, new: DeviceRates) -> DeviceRates:
    """The new rates, with known ones where none was measured."""
    values = {name: getattr(new, name) for name in new.__dataclass_fields__}
    for name, value in values.items():
        old = getattr(known, name)
        if isinstance(value, dict):
            values[name] = {**old, **value}
        elif value is None:
            values[name] = old
    return DeviceRates(**values)


def _is_same_model(name: str, device: Device) -> bool:
    """Whether the plain name of a file may be that of a GPU's model."""
    entry = listed(device.name, device.memory)
    return entry is not None and plain_name(entry.family) in name


def _is_near(memory: int, whole: int) -> bool:
    return abs(memory - whole) < SAME_MEMORY * whole
