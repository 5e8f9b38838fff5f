"""Averages the LoRAs of several steps of one training afterwards, as if they had been averaged while it ran.

The average is the power function EMA of Karras et al. 2024 ("Analyzing and Improving the Training Dynamics of Diffusion
Models", section 3.1): the LoRA after step t counts in proportion to t^gamma, so the average always spans the same part
of the training. That part is sigma_rel, the standard deviation of these weights over time divided by the length:

    sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 * (gamma + 3))
    average after step t = beta * average after step t-1 + (1 - beta) * LoRA after step t, beta = (1 - 1/t)^(gamma + 1)

Between two of the files the LoRA is taken to move along a line, and before the first to stand still: with the files of
all steps the average is exactly that of the formula.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hv15.errors import UserError
from hv15.lora.files import read_lora, save_lora
from hv15.models.weights.header import read_header
from hv15.records.metadata import AVERAGE, EMA_DECAY, MADE_FROM, STEPS, VALIDATION_LOSS
from hv15.records.paths import ProjectPaths

WIDEST = math.sqrt(1 / 12)
"""The sigma_rel of a plain mean over all steps (gamma 0)."""
_KOHYA_STEPS = "ss_steps"
_MOST_STEPS = 10**8
"""More steps than any training has: a damaged number must not fill the memory."""
_HALVINGS = 200
"""How often the interval that holds gamma is halved: until it is shorter than the distance of two floats."""


def average_loras(files: Sequence[Path], out: Path, sigma_rel: float) -> list[tuple[Path, float]]:
    """Write the average of LoRA files of one training, with the metadata of the last.

    Files that are averages themselves are left out, and so is the copy that is kept as the best of its training if
    another has its step: so all files of a training's folder may be given.

    Args:
        files: in any order, each from another step.
        sigma_rel: see above, up to `WIDEST`.

    Returns:
        The files in the order of their steps, with their weights.

    Raises:
        UserError: a file cannot be read, does not tell its step, or is not of the same training as the others.
    """
    steps = _steps_of(files)
    if len(set(steps.values())) < len(steps) or len(steps) < 2:
        listed = ", ".join(f"{path.name} {step}" for path, step in steps.items()) or "only averages"
        raise UserError(
            f"expected LoRAs of at least two different steps, found {listed}",
            hint=f"give the copies that train.save_every_n_steps keeps in {ProjectPaths().checkpoints}",
        )
    ordered = sorted(steps, key=steps.__getitem__)
    weights = weights_of_steps([steps[path] for path in ordered], sigma_rel)
    total: dict[str, Tensor] = {}
    for path, weight in zip(ordered, weights, strict=True):
        tensors, metadata = read_lora(path)
        if total:
            _refuse_others(path, tensors, total)
        for key, tensor in tensors.items():
            if _is_averaged(key):
                total[key] = total.get(key, torch.zeros(())) + weight * tensor.float()
            else:
                total[key] = tensor
    kept = {key: value for key, value in metadata.items() if key not in (MADE_FROM, VALIDATION_LOSS)}
    parts = {str(steps[path]): round(weight, 6) for path, weight in zip(ordered, weights, strict=True)}
    save_lora(out, total, {**kept, AVERAGE: json.dumps({"sigma_rel": sigma_rel, "weights": parts})})
    return list(zip(ordered, weights, strict=True))


def _steps_of(files: Sequence[Path]) -> dict[Path, int]:
    """Return those of the files that are averaged, with their steps.

    Raises:
        UserError: a file cannot be read, or does not tell its step.
    """
    headers = {path: read_header(path).metadata for path in files}
    copies = [path for path, metadata in headers.items() if not {AVERAGE, EMA_DECAY} & metadata.keys()]
    steps = {path: step_of_lora(path) for path in copies}
    usual = {step for path, step in steps.items() if VALIDATION_LOSS not in headers[path]}
    return {path: step for path, step in steps.items() if VALIDATION_LOSS not in headers[path] or step not in usual}


def step_of_lora(path: Path) -> int:
    """Return after how many steps a LoRA was saved, from its metadata.

    Raises:
        UserError: it cannot be read, or does not tell.
    """
    metadata = read_header(path).metadata
    text = metadata.get(STEPS, metadata.get(_KOHYA_STEPS, ""))
    if text.isdecimal() and 0 < int(text) <= _MOST_STEPS:
        return int(text)
    raise UserError.at(
        path,
        f"its metadata does not tell after how many steps it was saved ({STEPS} or {_KOHYA_STEPS})",
        hint="use files that hv15 or kohya's programs wrote while training",
    )


def weights_of_steps(steps: Sequence[int], sigma_rel: float) -> list[float]:
    """Return the weights, whose sum is 1, of the LoRAs after these numbers of steps, which ascend.

    Raises:
        UserError: there is no such average.
    """
    power = gamma_of(sigma_rel) + 1
    times = np.arange(steps[-1] + 1) / steps[-1]
    of_each = np.diff(times**power)  # of the LoRA after step 1, 2, ...
    places = np.interp(np.arange(1, steps[-1] + 1), steps, np.arange(len(steps)))  # 1.25: a quarter from file 1 to 2
    below = np.minimum(places.astype(int), len(steps) - 2)
    share = places - below
    weights = np.zeros(len(steps))
    np.add.at(weights, below, of_each * (1 - share))
    np.add.at(weights, below + 1, of_each * share)
    return [float(weight) for weight in weights]


def gamma_of(sigma_rel: float) -> float:
    """Return gamma for a sigma_rel, which falls as gamma grows.

    Raises:
        UserError: sigma_rel is not above 0, or is above that of gamma 0.
    """
    if not 0 < sigma_rel <= WIDEST:
        raise UserError(
            f"--sigma-rel: found {sigma_rel:g}, expected a number above 0 and at most {WIDEST:.4f}, a plain mean",
            hint="use 0.05 for the last part of the training, 0.1 to 0.25 for more of it",
        )
    low, high = 0.0, 1 / sigma_rel**2
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if sigma_rel_of(middle) > sigma_rel else (low, middle)
    return low


def sigma_rel_of(gamma: float) -> float:
    """Return the standard deviation of weights proportional to t^gamma, as a part of the length."""
    return math.sqrt((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)))


def _is_averaged(key: str) -> bool:
    return not key.endswith(".alpha")


def _refuse_others(path: Path, tensors: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> None:
    for key in sorted(tensors.keys() | others.keys()):
        if _differs(tensors.get(key), others.get(key), key):
            raise UserError.at(
                path,
                f"{key} is not as in the other files: layers, ranks and alphas must be the same",
                hint="average only files of one training",
            )


def _differs(a: Tensor | None, b: Tensor | None, key: str) -> bool:
    if a is None or b is None or a.shape != b.shape:
        return True
    return not _is_averaged(key) and not torch.equal(a.float(), b.float())
