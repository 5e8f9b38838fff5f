"""The denoising loop: the official program's latents step by step, then its rules one at a time."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file
from torch.testing import assert_close

from hv15.errors import UserError
from hv15.models import Condition
from hv15.sample.denoise import denoise, stack_conditions
from hv15.sample.noise import initial_noise
from hv15.sample.schedule import sigmas
from tests.models.golden_dit import GOLDEN, golden_dit
from tests.sample.conftest import StandIn

pytestmark = pytest.mark.numeric

SHAPE = (1, 4, 3, 4, 5)


def condition(value=0.0, text=3, glyphs=0, vision=None) -> Condition:
    return Condition(torch.full((1, text, 8), value), [text], torch.zeros(1, glyphs, 6), [glyphs], vision)


def golden_case():
    """Inputs of the official run of 4 steps, and its latents after each."""
    case = load_file(GOLDEN / "sampler_i2v_4steps.safetensors")
    conditions = [
        Condition(
            case[f"{side}/text_states"],
            [int(case[f"{side}/text_mask"].sum())],
            case[f"{side}/byt5_states"],
            [int(case[f"{side}/byt5_mask"].sum())],
            case["in/vision_states"],
        )
        for side in ("in", "neg")
    ]
    return case, *conditions


@pytest.mark.parametrize("batch_cfg", [False, True])
def test_official_sampler(batch_cfg):
    dit = golden_dit()
    case, cond, uncond = golden_case()
    noise, first = case["in/hidden_states"][:, :4], case["in/hidden_states"][:, 4:8, :1]
    schedule = sigmas(4, 5.0)
    for steps in range(1, 5):  # a run cut off after n steps ends at the n-th latents
        found = denoise(dit, noise, cond, uncond, schedule[: steps + 1], 6.0, first, batch_cfg=batch_cfg)
        assert_close(found, case[f"latents_after_step{steps - 1}"], atol=2e-5, rtol=0)


def test_guidance_in_one_batch_is_the_same():
    """Texts of unequal length, one with glyphs and one without: the padding of the batch changes nothing."""
    case, cond, uncond = golden_case()
    uncond = Condition(uncond.text[:, :4], [4], uncond.glyphs[:, :0], [0], uncond.vision)
    # In double precision, so that no order of sums is to be seen.
    noise = case["in/hidden_states"][:, :4].double()
    arguments = (golden_dit().double(), noise, cond, uncond, sigmas(3, 5.0), 6.0)
    assert_close(denoise(*arguments, batch_cfg=True), denoise(*arguments), atol=1e-6, rtol=0)


def test_the_true_velocity_leads_to_the_data():
    """v = noise - data, so that exact Euler steps end at the data: the flow's sign and the schedule's end."""
    data, noise = torch.randn(SHAPE), initial_noise(SHAPE, 3)
    model = StandIn(lambda x, timestep, cond: (x[:, :4] - data) / (timestep / 1000).view(-1, 1, 1, 1, 1))
    assert_close(denoise(model, noise, condition(), None, sigmas(7, 5.0), 1.0), data, atol=1e-5, rtol=0)


def test_diffusers_scheduler_takes_the_same_steps():
    model = StandIn(lambda x, timestep, cond: torch.sin(3 * x[:, :4] + timestep.view(-1, 1, 1, 1, 1) / 500))
    noise = initial_noise(SHAPE, 5)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=7.0)
    scheduler.set_timesteps(sigmas=torch.linspace(1, 0, 7)[:-1].tolist())
    latents = noise
    for timestep in scheduler.timesteps:
        velocity = model(torch.cat([latents, latents], dim=1), timestep[None], None)
        latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
    found = denoise(model, noise, condition(), None, sigmas(6, 7.0), 1.0)
    assert_close(found, latents, atol=1e-5, rtol=0)


def test_guidance_formula():
    """u + g*(c - u): with velocities u = 1 and c = 2, guidance 6 moves by 7 in total."""
    model = StandIn(lambda x, timestep, cond: cond.text.mean((1, 2)).view(-1, 1, 1, 1, 1).expand(-1, 4, *x.shape[2:]))
    noise = initial_noise(SHAPE, 1)
    found = denoise(model, noise, condition(2.0), condition(1.0), sigmas(5, 5.0), 6.0)
    assert_close(found, noise - 7, atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_guidance_of_at_most_one_is_off(scale):
    model = StandIn(lambda x, timestep, cond: x[:, :4])
    denoise(model, initial_noise(SHAPE, 1), condition(2.0), condition(1.0), sigmas(3, 5.0), scale)
    assert [len(cond.text) for _, _, cond, _ in model.calls] == [1, 1, 1]
    assert all(cond.text[0, 0, 0] == 2 for _, _, cond, _ in model.calls)


def test_timesteps_are_not_rounded():
    model = StandIn(lambda x, timestep, cond: x[:, :4])
    denoise(model, initial_noise(SHAPE, 1), condition(), None, sigmas(50, 7.0), 1.0)
    found = torch.cat([timestep for _, timestep, _, _ in model.calls])
    assert found.dtype == torch.float32
    assert_close(found, 1000 * sigmas(50, 7.0)[:-1], atol=1e-3, rtol=0)


def test_a_meanflow_model_is_told_where_the_step_ends():
    model = StandIn(lambda x, timestep, cond: x[:, :4], meanflow=True)
    denoise(model, initial_noise(SHAPE, 1), condition(), condition(), sigmas(4, 7.0), 6.0)
    ends = torch.cat([timestep_r for _, _, _, timestep_r in model.calls])[::2]  # two branches a step
    assert_close(ends, 1000 * sigmas(4, 7.0)[1:], atol=1e-3, rtol=0)
    assert ends[-1] == 0


def test_i2v_tells_the_first_frame_and_does_not_clamp_it():
    first = torch.randn(1, 4, 1, 4, 5)
    model = StandIn(lambda x, timestep, cond: torch.ones_like(x[:, :4]))
    noise = initial_noise(SHAPE, 2)
    found = denoise(model, noise, condition(), None, sigmas(3, 5.0), 1.0, first)
    for x, *_ in model.calls:
        assert torch.equal(x[:, 4:8, :1], first)
        assert not x[:, 4:8, 1:].any()
        assert (x[:, 8, 0] == 1).all()
        assert not x[:, 8, 1:].any()
    assert_close(found, noise - 1, atol=1e-5, rtol=0)


def test_t2v_has_no_condition_and_no_mask():
    model = StandIn(lambda x, timestep, cond: x[:, :4])
    denoise(model, initial_noise(SHAPE, 2), condition(), None, sigmas(2, 5.0), 1.0)
    assert all(x.shape[1] == 9 and not x[:, 4:].any() for x, *_ in model.calls)


def test_progress_counts_steps():
    seen = []
    model = StandIn(lambda x, timestep, cond: x[:, :4])
    denoise(model, initial_noise(SHAPE, 2), condition(), None, sigmas(3, 5.0), 1.0, progress=seen.append)
    assert seen == [1, 2, 3]


def test_tables_made_while_sampling_serve_training():
    """Previews run inside training: what the model keeps from them must not stop a backward pass."""
    case, cond, _ = golden_case()
    dit = golden_dit()
    assert not denoise(dit, case["in/hidden_states"][:, :4], cond, None, sigmas(1, 5.0), 1.0).requires_grad
    weight = dit.double_blocks[0].img_mlp.fc1.weight.requires_grad_(True)
    dit(case["in/hidden_states"], torch.tensor([500.0]), cond).sum().backward()
    assert weight.grad is not None


def test_nan_is_named():
    model = StandIn(lambda x, timestep, cond: x[:, :4] / 0)
    with pytest.raises(UserError, match="NaN or infinity"):
        denoise(model, initial_noise(SHAPE, 2), condition(), None, sigmas(2, 5.0), 1.0)


def test_guidance_without_a_negative_branch_is_a_bug():
    with pytest.raises(ValueError, match="unconditional"):
        denoise(StandIn(None), initial_noise(SHAPE, 2), condition(), None, sigmas(2, 5.0), 6.0)


def test_stacked_conditions_know_their_lengths():
    vision = torch.ones(1, 2, 5)
    joined = stack_conditions([condition(1.0, text=2, vision=vision), condition(2.0, text=5, glyphs=3, vision=vision)])
    assert joined.text.shape == (2, 5, 8)
    assert (joined.text_lengths, joined.glyph_lengths) == ([2, 5], [0, 3])
    assert joined.vision.shape == (2, 2, 5)
    with pytest.raises(ValueError, match="vision"):
        stack_conditions([condition(), condition(vision=vision)])
