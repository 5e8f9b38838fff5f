"""The packages that hv15 needs, as they are installed here. Imports none of them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from types import MappingProxyType

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hv15.home import clone

_NOT_USED = {"test"}
"""Extras whose packages no command uses."""


@cache
def installed_packages() -> Mapping[str, str]:
    """Return the versions of all installed packages that hv15 needs, directly or through another, by name, sorted.

    Those of its extras count if they are installed.
    """
    found, waiting = dict[str, str](), list(_requirements())
    while waiting:
        name = canonicalize_name(waiting.pop().name)
        if name in found or name == "hv15":
            continue
        try:
            told = metadata.metadata(name)  # once: it is a file that is read and parsed
        except metadata.PackageNotFoundError:  # of an extra, or for another system
            continue
        found[name] = told["Version"]
        waiting += _needed(told.get_all("Requires-Dist") or (), extras={""})
    return MappingProxyType(dict(sorted(found.items())))


def _requirements() -> Iterator[Requirement]:
    """Yield what hv15 itself asks for; a clone's own file counts, whatever was installed from it once."""
    top = clone()
    if top is None:
        extras = {"", *(metadata.metadata("hv15").get_all("Provides-Extra") or ())} - _NOT_USED
        yield from _needed(metadata.requires("hv15") or (), extras)
        return
    project = tomllib.loads((top / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project.get("optional-dependencies", {})
    lines = [*project["dependencies"], *(line for name in optional if name not in _NOT_USED for line in optional[name])]
    yield from _needed(lines, {""})


def _needed(lines: list[str] | tuple[str, ...], extras: set[str]) -> Iterator[Requirement]:
    """Yield the requirements that hold on this machine, with any of these extras; "" is without one."""
    for each in map(Requirement, lines):
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in extras):
            yield each
