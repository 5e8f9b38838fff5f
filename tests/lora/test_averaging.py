"""The power function EMA of files, against the recursion of the paper over all steps of a known training."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from hv15.errors import UserError
from hv15.lora import save_lora
from hv15.lora.averaging import WIDEST, average_loras, gamma_of, sigma_rel_of, step_of_lora, weights_of_steps

pytestmark = pytest.mark.numeric

NAME = "lora_unet_double_blocks_0_img_attn_q"


def lora(value: Tensor, alpha: float = 4.0) -> dict[str, Tensor]:
    """A LoRA of rank 2 whose matrices hold the numbers [4]."""
    down, up = value.view(2, 2), (value * 2).view(2, 2)
    return {f"{NAME}.lora_down.weight": down, f"{NAME}.lora_up.weight": up, f"{NAME}.alpha": torch.tensor(alpha)}


def save(folder: Path, values: dict[int, Tensor], **metadata: str) -> list[Path]:
    """The files of some steps."""
    paths = {step: folder / f"{step}.safetensors" for step in values}
    for step, path in paths.items():
        save_lora(path, lora(values[step]), {"hv15.steps": str(step), **metadata})
    return list(paths.values())


def recursion(values: list[Tensor], gamma: float) -> Tensor:
    """Karras et al. 2024, equations 1 and 2, over all steps from the first."""
    average = torch.zeros(4, dtype=torch.float64)
    for step, value in enumerate(values, start=1):
        beta = (1 - 1 / step) ** (gamma + 1)
        average = beta * average + (1 - beta) * value.double()
    return average


def found(path: Path) -> Tensor:
    return load_file(path)[f"{NAME}.lora_down.weight"].flatten()


@pytest.mark.parametrize("sigma_rel", [0.05, 0.15, WIDEST])
def test_with_the_files_of_all_steps_it_is_the_papers_recursion(tmp_path: Path, sigma_rel: float) -> None:
    values = [torch.randn(4, generator=torch.Generator().manual_seed(step)).cumsum(0) for step in range(12)]
    files = save(tmp_path, {step + 1: value for step, value in enumerate(values)})
    average_loras(files[::-1], tmp_path / "out.safetensors", sigma_rel)
    expected = recursion(values, gamma_of(sigma_rel))
    torch.testing.assert_close(found(tmp_path / "out.safetensors").double(), expected, atol=1e-5, rtol=1e-5)


def test_with_few_files_it_is_exact_where_the_lora_moves_in_a_line(tmp_path: Path) -> None:
    """It stands still up to step 10, then moves along two lines; the files are of uneven steps."""
    start, first, last = torch.zeros(4), torch.tensor([1.0, 2, 3, 4]), torch.tensor([5.0, -1, 0, 2])
    values = [start] * 10
    values += [first * (step / 20) for step in range(1, 21)]
    values += [first + (last - first) * (step / 70) for step in range(1, 71)]
    files = save(tmp_path, {10: values[9], 30: values[29], 50: values[49], 100: values[99]})
    average_loras(files, tmp_path / "out.safetensors", 0.12)
    expected = recursion(values, gamma_of(0.12))
    torch.testing.assert_close(found(tmp_path / "out.safetensors").double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sigma_rel", [0.02, 0.1, 0.25, WIDEST])
def test_the_weights_have_the_width_that_was_asked_for(sigma_rel: float) -> None:
    """The standard deviation of the steps, each counted with its weight, as a part of the length."""
    length = 20_000
    weights = weights_of_steps(range(1, length + 1), sigma_rel)
    assert sum(weights) == pytest.approx(1)
    mean = sum(step * weight for step, weight in enumerate(weights, start=1))
    spread = math.sqrt(sum((step - mean) ** 2 * weight for step, weight in enumerate(weights, start=1)))
    assert spread / length == pytest.approx(sigma_rel, rel=1e-3)


def test_gamma_of_the_paper() -> None:
    """Section 3.1: gamma 16.97 and 6.94 are sigma_rel 0.05 and 0.10."""
    assert gamma_of(0.05) == pytest.approx(16.97, abs=0.01)
    assert gamma_of(0.10) == pytest.approx(6.94, abs=0.01)
    assert sigma_rel_of(gamma_of(0.2)) == pytest.approx(0.2)
    assert gamma_of(WIDEST) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("sigma_rel", [0.0, -1.0, 0.3, math.nan])
def test_other_widths_are_refused(sigma_rel: float) -> None:
    with pytest.raises(UserError, match=r"expected a number above 0 and at most 0\.2887"):
        gamma_of(sigma_rel)


def test_the_file_tells_what_it_is_the_average_of(tmp_path: Path) -> None:
    values = {step: torch.full((4,), float(step)) for step in (10, 20)}
    files = save(tmp_path, values, **{"hv15.made_from": "{}", "hv15.task": "t2v", "hv15.validation_loss": "1"})
    average_loras(files, tmp_path / "out.safetensors", WIDEST)
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["hv15.steps"] == "20"
    assert metadata["hv15.task"] == "t2v"
    assert "hv15.made_from" not in metadata, "it must not be taken for the training's product"
    assert "hv15.validation_loss" not in metadata, "that is the loss of one of the files"
    told = json.loads(metadata["hv15.average"])
    assert told["sigma_rel"] == WIDEST
    assert told["weights"].keys() == {"10", "20"}
    assert load_file(tmp_path / "out.safetensors")[f"{NAME}.alpha"] == 4


def test_all_files_of_a_folder_may_be_given(tmp_path: Path) -> None:
    """Averages are left out, and the best copy where another has its step; else it counts as a copy of its own."""
    values = {step: torch.full((4,), float(step)) for step in (10, 20, 30)}
    files = save(tmp_path, values)
    average_loras(files, tmp_path / "expected.safetensors", 0.2)
    for name, step, more in (
        ("best", 20, {"hv15.validation_loss": "0.5"}),
        ("ema", 30, {"hv15.ema_decay": "0.9"}),
        ("older", 30, {"hv15.average": "{}"}),
    ):
        save_lora(tmp_path / f"{name}.safetensors", lora(torch.ones(4)), {"hv15.steps": str(step), **more})
    extra = [tmp_path / f"{name}.safetensors" for name in ("best", "ema", "older")]
    used = average_loras([*extra, *files], tmp_path / "out.safetensors", 0.2)
    assert [path for path, _ in used] == files
    assert torch.equal(found(tmp_path / "out.safetensors"), found(tmp_path / "expected.safetensors"))
    used = average_loras([extra[0], files[0], files[2]], tmp_path / "out.safetensors", 0.2)
    assert [path for path, _ in used] == [files[0], extra[0], files[2]]
    with pytest.raises(UserError, match="found only averages"):
        average_loras(extra[1:], tmp_path / "out.safetensors", 0.2)


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    files = save(tmp_path, {1: torch.ones(4), 2: torch.zeros(4)})
    other, same, unknown = (tmp_path / f"{name}.safetensors" for name in ("other", "same", "unknown"))
    save_lora(other, lora(torch.ones(4), alpha=2.0), {"ss_steps": "3"})
    save_lora(same, lora(torch.ones(4)), {"ss_steps": "2"})
    save_lora(unknown, lora(torch.ones(4)), {})
    assert step_of_lora(other) == 3
    for extra, message in (
        ([*files, other], "alpha is not as in the other files"),
        ([*files, same], "at least two different steps, found .*same.safetensors 2"),
        (files[:1], "at least two different steps"),
        ([*files, unknown], "does not tell after how many steps"),
    ):
        with pytest.raises(UserError, match=message):
            average_loras(extra, tmp_path / "out.safetensors", 0.2)
    assert not (tmp_path / "out.safetensors").exists()
