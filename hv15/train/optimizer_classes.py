"""The classes behind `train.optimizer_type`, and in what hv15 differs from their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

import torch

from hv15.bitsandbytes import bitsandbytes, without_kernels
from hv15.config.training.optimizer import CLASSES, OptimizerType
from hv15.errors import UserError
from hv15.train.optimizer_packages import check_package, missing_package

_BITSANDBYTES = "bitsandbytes"

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


def optimizer_class(name: OptimizerType) -> type[torch.optim.Optimizer]:
    """Return the class for a value of `train.optimizer_type`; its module is imported.

    Only modules of installed packages are imported, so a project cannot bring code of its own.

    Raises:
        MissingPackage: the package is not installed, or cannot be loaded.
        UserError: the package has no such optimizer class.
    """
    check_package(name)
    module, _, short = CLASSES.get(name, name).rpartition(".")
    try:
        with without_kernels():  # transformers imports bitsandbytes, too
            found = getattr(_imported(module), short, None)
    except Exception as error:  # whatever a foreign package raises when it is imported
        if name in CLASSES:
            raise missing_package(name, error) from error
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


def _imported(module: str) -> object:
    package, _, below = module.partition(".")
    return bitsandbytes(below) if package == _BITSANDBYTES and below else import_module(module)
