"""The schedule against the official scheduler's numbers and diffusers' scheduler."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch.testing import assert_close

from hv15.errors import UserError
from hv15.noise.levels import TIMESTEPS
from hv15.sample.schedule import sigmas

pytestmark = pytest.mark.numeric

OFFICIAL = json.loads((Path(__file__).parents[1] / "golden/sigma_schedules.json").read_text())


@pytest.mark.parametrize("case", OFFICIAL, ids=lambda case: f"{case['steps']}-steps-shift-{case['shift']}")
def test_official_sigmas_and_timesteps(case):
    found = sigmas(case["steps"], case["shift"])
    assert found.dtype == torch.float32
    assert_close(found, torch.tensor(case["sigmas"]), atol=2e-7, rtol=0)
    assert_close(TIMESTEPS * found[:-1], torch.tensor(case["timesteps"]), atol=2e-4, rtol=0)


@pytest.mark.parametrize("steps", [1, 8, 50])
@pytest.mark.parametrize("shift", [1.0, 5.0, 9.0])
def test_diffusers_scheduler_has_the_same_sigmas(steps, shift):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=torch.linspace(1, 0, steps + 1)[:-1].tolist())
    assert_close(sigmas(steps, shift), scheduler.sigmas, atol=2e-7, rtol=0)


@pytest.mark.parametrize(("steps", "shift"), [(0, 5.0), (-3, 5.0), (10, 0.0), (10, float("nan"))])
def test_a_schedule_that_cannot_be(steps, shift):
    with pytest.raises(UserError, match="expected"):
        sigmas(steps, shift)
