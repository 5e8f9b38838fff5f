"""Whether the package with an optimizer's class is installed. Loads no torch."""

from __future__ import annotations

from functools import cache
from importlib.metadata import packages_distributions
from importlib.util import find_spec

from hv15.config.training.optimizer import CLASSES, OptimizerName, OptimizerType, package_of
from hv15.errors import UserError

_OF_EXTRA = ("prodigyopt", "prodigyplus", "pytorch_optimizer", "schedulefree")
"""Packages that `pip install 'hv15[optimizers]'` installs."""


class MissingPackage(UserError):  # noqa: N818 - it is a kind of UserError, as the others' names say
    """The package of an optimizer is not installed here, or cannot be loaded; elsewhere it may be."""


def check_package(name: OptimizerType) -> None:
    """Check that the package of a value of `train.optimizer_type` is installed; nothing is imported.

    For the path of a class only packages that pip has installed count, so a project cannot bring code of its own.

    Raises:
        MissingPackage: it is not installed.
    """
    package = package_of(name)
    if name in CLASSES:
        if find_spec(package) is None:
            raise missing_package(name, "it is not installed")
    elif package not in _installed_packages():
        raise MissingPackage(
            f"train.optimizer_type {name}: {package} is not an installed package",
            hint=f"install it with pip, or use one of {', '.join(CLASSES)}",
        )


def missing_package(name: OptimizerType, reason: object) -> MissingPackage:
    """Return the error about the package of a named optimizer."""
    plain: OptimizerName = "AdamW"
    package = package_of(name)
    install = "pip install 'hv15[optimizers]'" if package in _OF_EXTRA else f"reinstall {package} for this machine"
    return MissingPackage(
        f"train.optimizer_type {name}: {package} cannot be loaded: {reason}",
        hint=f"{install}, or set train.optimizer_type to {plain}",
    )


@cache
def _installed_packages() -> frozenset[str]:
    """Names that can be imported from installed distributions; reading them takes a tenth of a second."""
    return frozenset(packages_distributions())
