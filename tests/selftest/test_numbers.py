"""The bounds hold where numbers are rounded as on a GPU, which a processor can do as well, though slowly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hv15.records.selftest import Row
from hv15.selftest import encoders, numbers
from hv15.selftest.run import reports
from hv15.selftest.sizes import TINY
from hv15.selftest.stand import Stand


class Rounding(Stand):
    """The processor with the number formats of a GPU."""

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16

    @property
    def encoder_dtype(self) -> torch.dtype:
        return torch.float16


def rows(folder: Path, *beginnings: str) -> list[Row]:
    stand = Rounding(torch.device("cpu"), TINY, folder)
    checks = [*numbers.number_checks(stand), *encoders.number_checks(stand)]
    *_, report = reports(stand, [check for check in checks if check.name.startswith(beginnings)])
    assert report.rows
    return [row for row in report.rows if row.state != "skipped"]


QUICK = ("transformer", "quantize: fp8: ")
ALL = ("tr", "grad", "two", "check", "swap", "att", "win", "tex", "gui", "CUDA", "quant", "Qwen", "SigLIP", "ByT5")
"""But for the VAE, whose convolutions a processor computes a hundred times slower in 16 bits."""


@pytest.mark.slow
@pytest.mark.parametrize("beginnings", [QUICK, ALL], ids=["quick", "all"])
def test_what_is_rounded_to_16_bits_is_within_the_bounds(beginnings: tuple[str, ...], tmp_path: Path) -> None:
    """And not equal: it was rounded."""
    found = rows(tmp_path, *beginnings)
    assert [row for row in found if row.state != "ok"] == []
    assert any(row.measured.error for row in found)


def test_what_loses_more_than_its_format_is_found(tmp_path: Path) -> None:
    """One block of three whose result keeps 4 bits instead of 8."""
    checked = numbers.TransformerNumbers(Rounding(torch.device("cpu"), TINY, tmp_path))

    def worse(_: nn.Module, __: object, result: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        image, text = result
        return image.to(torch.float8_e4m3fn).to(image.dtype), text

    checked.dit.double_blocks[0].register_forward_hook(worse)
    found = checked.forward()
    assert found.error is not None
    assert found.bound is not None
    assert found.error > 1.2 * found.bound
