"""The classes behind `train.optimizer_type`, and in what hv15 differs from their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import packages_distributions

import torch

from hv15.bitsandbytes import bitsandbytes
from hv15.config.training.optimizer import CLASSES, OptimizerName, OptimizerType
from hv15.errors import UserError

_BITSANDBYTES = "bitsandbytes"
_OF_EXTRA = ("prodigyopt", "prodigyplus", "pytorch_optimizer", "schedulefree")
"""Packages that `pip install 'hv15[optimizers]'` installs."""

DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "AdamW": {"fused": False},  # the fused kernel sums in another order on some devices
    # As in the model's official training: the update is scaled by 0.2*sqrt(max(sides)), so that learning rates are
    # comparable to AdamW's.
    "Muon": {"weight_decay": 0.01, "adjust_lr_fn": "match_rms_adamw"},
    # The rate is train.learning_rate along train.lr_scheduler, as with every other optimizer.
    "Adafactor": {"scale_parameter": False, "relative_step": False, "warmup_init": False},
    # Otherwise a warm-up lets it find too high a rate. Without one, and with a rate of 1, it changes nothing.
    "Prodigy": {"safeguard_warmup": True},
    # One rate is found for the whole LoRA, as everywhere else: down and up matrices are two groups only here.
    "ProdigyPlusScheduleFree": {"split_groups": False},
}
"""Differences from the classes' own defaults, by name."""

_SET_HERE = "hv15 sets it itself"
_SCHEDULED = "train.learning_rate and train.lr_scheduler set the rate; inverse_sqrt falls as Adafactor's own steps do"
_OF_ALL = {
    **dict.fromkeys(("self", "params", "lr", "fused", "differentiable", "capturable", "maximize"), _SET_HERE),
    **dict.fromkeys(("optim_bits", "is_paged", "args", "fsdp_in_use", "fused_back_pass"), _SET_HERE),
}
_OF_ONE = {
    "Adafactor": dict.fromkeys(("relative_step", "warmup_init"), _SCHEDULED),
    "AdamWScheduleFree": {"warmup_steps": "train.lr_warmup_steps does the same"},
}


class MissingPackage(UserError):  # noqa: N818 - it is a kind of UserError, as the others' names say
    """The package of an optimizer is not installed here, or cannot be loaded; elsewhere it may be."""


def optimizer_class(name: OptimizerType) -> type[torch.optim.Optimizer]:
    """Return the class for a value of `train.optimizer_type`; its module is imported.

    Only modules of installed packages are imported, so a project cannot bring code of its own.

    Raises:
        MissingPackage: the package is not installed, or cannot be loaded.
        UserError: the package has no such optimizer class.
    """
    module, _, short = CLASSES.get(name, name).rpartition(".")
    package = module.partition(".")[0]
    if name not in CLASSES and package not in _installed_packages():
        raise MissingPackage(
            f"train.optimizer_type {name}: {package} is not an installed package",
            hint=f"install it with pip, or use one of {', '.join(CLASSES)}",
        )
    try:
        found = getattr(_imported(module), short, None)
    except Exception as error:  # whatever a foreign package raises when it is imported
        if name in CLASSES:
            raise _missing(name, package, error) from error
        raise UserError(
            f"train.optimizer_type {name}: {module} cannot be imported: {error}",
            hint="write the path as in `from package.module import Class`: package.module.Class",
        ) from error
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        raise UserError(
            f"train.optimizer_type {name}: {module} has no optimizer class {short}",
            hint="use a subclass of torch.optim.Optimizer",
        )
    return found


def reserved(name: OptimizerType) -> dict[str, str]:
    """Return the arguments of a class that are not the user's, and why."""
    return {**_OF_ALL, **_OF_ONE.get(name, {})}


@cache
def _installed_packages() -> frozenset[str]:
    """Names that can be imported from installed distributions; reading them takes a tenth of a second."""
    return frozenset(packages_distributions())


def _imported(module: str) -> object:
    package, _, below = module.partition(".")
    return bitsandbytes(below) if package == _BITSANDBYTES and below else import_module(module)


def _missing(name: str, package: str, error: Exception) -> MissingPackage:
    plain: OptimizerName = "AdamW"
    install = "pip install 'hv15[optimizers]'" if package in _OF_EXTRA else f"reinstall {package} for this machine"
    return MissingPackage(
        f"train.optimizer_type {name}: {package} cannot be loaded: {error}",
        hint=f"{install}, or set train.optimizer_type to {plain}",
    )
