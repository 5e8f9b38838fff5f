"""Writes weights in fp8 as ComfyUI reads them in all of its versions; see `hv15.models.weights.fp8_files`.

Each weight has one scale, absmax / 448, the largest number of e4m3. The marker `scaled_fp8` of two elements asks
ComfyUI to multiply in the activations' number format, so that only the weights are rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from hv15.models.weights.relative_error import RelativeError

_CODES = torch.float8_e4m3fn
_LARGEST = torch.finfo(_CODES).max
_MARKER = "scaled_fp8"
_SMALLEST_SCALE = 1e-12


class Fp8Writer:
    """Quantises the chosen tensors of a file while it is written, and adds up what the rounding loses."""

    def __init__(self) -> None:
        self._error = RelativeError()
        self._scales: dict[str, Tensor] = {}

    @property
    def error(self) -> float:
        """The relative error of all quantised weights together (Frobenius norm)."""
        return self._error.value

    def described(self, tensors: Mapping[str, Tensor], chosen: Collection[str]) -> dict[str, Tensor]:
        """Return dtypes and shapes of the file's tensors; each scale comes right after its weight."""
        found: dict[str, Tensor] = {}
        for key, tensor in tensors.items():
            found[key] = tensor.to(_CODES) if key in chosen else tensor
            if key in chosen:
                found[_scale_of(key)] = torch.empty((), device="meta")
        found[_MARKER] = torch.empty(2, dtype=_CODES, device="meta")
        return found

    def making(self, make: Callable[[str], Tensor], chosen: Collection[str]) -> Callable[[str], Tensor]:
        """Return a function that makes the file's tensors, called in the order of `described`."""

        def tensor(key: str) -> Tensor:
            if key == _MARKER:
                return torch.zeros(2).to(_CODES)
            if (scale := self._scales.pop(key, None)) is not None:
                return scale
            return self._codes(key, make(key)) if key in chosen else make(key)

        return tensor

    def _codes(self, key: str, weight: Tensor) -> Tensor:
        weight = weight.float()
        scale = (weight.abs().max() / _LARGEST).clamp(min=_SMALLEST_SCALE)
        codes = (weight / scale).clamp(-_LARGEST, _LARGEST).to(_CODES)
        self._error.add(codes.float() * scale, weight)
        self._scales[_scale_of(key)] = scale
        return codes


def _scale_of(key: str) -> str:
    return key.removesuffix(".weight") + ".scale_weight"
