"""What is planned for each optimizer's state, against the file that a training saves and a step on the CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hv15.config import TrainSettings
from hv15.config.training.optimizer import CLASSES
from hv15.errors import UserError
from hv15.plan.metered_steps import run_training
from hv15.plan.optimizer_memory import plannable, state_bytes
from hv15.plan.stretches import OPTIMIZER
from hv15.train.optimizer_state import state_of
from hv15.train.optimizers import make_optimizer
from tests.plan.steps import SIZE, SMALL, of_steps, settings

pytestmark = pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
LARGE_AND_SMALL = [(16, 2048), (128, 16), (2048, 16), (16, 2048), (16, 2048)]
"""Above and below what is kept in 8 bits."""
QUICK = ("AdamW8bit", "AdamWScheduleFree", "Prodigy")


@pytest.mark.parametrize(
    ("name", "sizes"),
    [*((name, LARGE_AND_SMALL) for name in (*CLASSES, "torch.optim.RAdam")), ("pytorch_optimizer.SOAP", [(64, 96)])],
)
def test_the_state_is_that_of_the_file(name: str, sizes: list[tuple[int, int]], tmp_path: Path) -> None:
    train = TrainSettings(optimizer_type=name)
    matrices = [torch.nn.Parameter(torch.ones(size)) for size in sizes]
    optimizer = make_optimizer(name, [{"params": matrices, "lr": train.learning_rate}])
    for matrix in matrices:
        matrix.grad = torch.ones_like(matrix)
    optimizer.step()
    torch.save(state_of(optimizer), tmp_path / "optimizer.pt")
    written = (tmp_path / "optimizer.pt").stat().st_size
    names_and_padding = 10_000
    assert written - names_and_padding < state_bytes(train, sizes) < written


@pytest.mark.parametrize("name", ["AdamW", "AdamW8bit", "PagedAdamW8bit"])
@pytest.mark.parametrize("sizes", [LARGE_AND_SMALL, [(8, 16)] * 3, [(64, 64), (63, 65), (4095, 1), (7, 999)]], ids=len)
def test_what_is_known_is_what_a_step_of_the_optimizer_keeps(name: str, sizes: list[tuple[int, int]]) -> None:
    run = TrainSettings(optimizer_type=name, optimizer_args={"weight_decay": 0.02})
    assert state_bytes(TrainSettings(optimizer_type=name), sizes) == state_bytes(run, sizes)


@pytest.mark.parametrize("options", [{"optimizer_type": "no_such_package.Adam"}, {"optimizer_type": "AdamW"}], ids=str)
def test_what_cannot_be_run_here_is_planned_as_adamw(options: dict[str, Any]) -> None:
    assert state_bytes(TrainSettings.model_validate(options), [(8, 16)] * 3) == 3 * (8 * 16 * 2 + 1) * 4


def test_arguments_that_are_wrong_are_not_planned() -> None:
    with pytest.raises(UserError, match="has no such argument"):
        plannable(TrainSettings(optimizer_type="AdamW", optimizer_args={"momentum": 1}))


@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in CLASSES
        if name not in ("AdamW", "Muon")
    ],
)
def test_a_training_step_takes_what_it_takes_on_the_cpu(name: str) -> None:
    """AdamW and Muon: test_transformer.py. Prodigy keeps no copy of matrices that are 0, which a plan cannot know."""
    asked, config = settings({"optimizer_type": name, "learning_rate": 1.0}), replace(SMALL, num_blocks=1)
    real = run_training(asked, config, torch.float32, SIZE, device="cpu")
    planned = run_training(asked, config, torch.float32, SIZE, device="meta")
    copies = 0
    if "Prodigy" in name:
        kept = [max(parts.get(OPTIMIZER, 0) for parts in meter.moments.values()) for meter in (planned, real)]
        copies = kept[0] - kept[1]
        assert 0 < copies < kept[1] / 4
    assert of_steps(planned) - of_steps(real) == pytest.approx(copies, abs=0.001 * of_steps(real))
