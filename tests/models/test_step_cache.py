"""Steps that reuse earlier ones: against runs of the official program's package, and by what must hold."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from hv15.choices import StepCacheRule
from hv15.errors import UserError
from hv15.models import Condition, DiT, DiTConfig
from hv15.models.step_cache import AdaptiveCache, TaylorCache, kept_tokens, whole_steps
from hv15.sample.cached import Cached
from hv15.sample.denoise import Guidance, denoise
from hv15.sample.prompts import StepCaching
from hv15.sample.schedule import sigmas
from tests.models.golden_dit import GOLDEN, TINY, golden_dit, tensors

STEPS = 14


@cache
def recorded_dit() -> DiT:
    """The recorded runs' transformer. Its condition channels are zero, so of 98 input channels only the first count."""
    with safe_open(GOLDEN / "feature_cache.safetensors", "pt") as file:
        sizes = json.loads(file.metadata()["config"])
    config = DiTConfig(
        hidden_size=sizes["hidden_size"],
        num_heads=sizes["heads_num"],
        num_blocks=sizes["mm_double_blocks_depth"],
        rope_dims=tuple(sizes["rope_dim_list"]),
        text_dim=sizes["text_states_dim"],
        glyph_dim=16,
        glyph_hidden=24,
        vision_dim=sizes["vision_states_dim"],
    )
    state = {name: value.float() for name, value in tensors("sr_dit_weights").items() if "time_r_in" not in name}
    state["img_in.proj.weight"] = state["img_in.proj.weight"][:, : config.in_channels].clone()
    with torch.device("meta"):
        dit = DiT(config)
    dit.load_state_dict(state, strict=True, assign=True)
    return dit.eval().requires_grad_(False)


def recorded(name: str) -> Tensor:
    return tensors("feature_cache")[name]


def recorded_condition() -> Condition:
    text = recorded("in/text")
    lengths = recorded("in/text_mask").sum(1).int().tolist()
    return Condition(text, lengths, torch.zeros(1, 0, 16), [0])


@pytest.mark.numeric
@pytest.mark.parametrize("rule", ["none", "deepcache", "teacache", "taylorcache"])
def test_runs_of_the_official_program(rule: str) -> None:
    dit, cond = recorded_dit(), recorded_condition()
    noise, levels = recorded("in/latents"), sigmas(STEPS, 5.0).tolist()
    model = dit if rule == "none" else Cached(dit, StepCaching(rule, 3 / STEPS, 11 / STEPS, 4, 0.1), STEPS)  # type: ignore[arg-type]
    latents, velocities = noise, []
    constant = torch.zeros(1, 33, *noise.shape[2:])
    for step, (level, following) in enumerate(pairwise(levels)):
        if isinstance(model, Cached):
            model.step = step
        velocities.append(model(torch.cat([latents, constant], 1), torch.tensor([1000 * level]), cond))
        latents = latents + velocities[-1] * (following - level)
    torch.testing.assert_close(latents, recorded(f"{rule}/out"), atol=2e-5, rtol=0)
    if isinstance(model, Cached):
        assert [each.computed for each in model.caches.values()] == [[0, 1, 2, 3, 7, 11, 12, 13]]
        for step in (4, 5, 6, 8, 10):
            wanted = recorded(f"{rule}/velocity{step}")
            torch.testing.assert_close(velocities[step], wanted, atol=2e-5, rtol=0)


def test_the_official_schedule() -> None:
    whole = whole_steps(50, start=0.22, end=0.9, interval=4, least=1)
    assert [step for step in range(50) if whole[step]] == [*range(12), 15, 19, 23, 27, 31, 35, 39, 43, *range(45, 50)]


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8, 12, 13, 30, 50, 60, 100])
@pytest.mark.parametrize("start", [0.0, 0.22, 1.0])
def test_no_number_of_steps_is_a_trap(steps: int, start: float) -> None:
    whole = whole_steps(steps, start=start, end=0.9, interval=4, least=3)
    assert len(whole) == steps
    assert whole[-1]
    assert all(whole[:3])
    if steps >= 30 and start < 1:
        assert 0.2 < whole.count(False) / steps < 0.75


def small_run(model: DiT | Cached, dit: DiT, steps: int = 12, scale: float = 3.0, **options: object) -> Tensor:
    torch.manual_seed(0)
    noise = torch.randn(1, dit.config.latent_channels, 2, 4, 4)
    cond, uncond = (
        Condition(torch.randn(1, count, dit.config.text_dim), [count], torch.zeros(1, 0, dit.config.glyph_dim), [0])
        for count in (5, 3)
    )
    return denoise(model, noise, cond, uncond, sigmas(steps, 5.0), scale, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rule", "batch_cfg"),
    [
        ("deepcache", True),
        ("teacache", False),
        ("taylorcache", True),
        ("adaptive", False),
        pytest.param("deepcache", False, marks=pytest.mark.slow),
        pytest.param("teacache", True, marks=pytest.mark.slow),
        pytest.param("taylorcache", False, marks=pytest.mark.slow),
        pytest.param("adaptive", True, marks=pytest.mark.slow),
    ],
)
def test_where_nothing_is_reused_it_is_the_same_to_the_bit(rule: str, batch_cfg: bool) -> None:
    dit = golden_dit()
    caching = StepCaching(rule, 0.2, 0.9, 1, threshold=1e-9)  # type: ignore[arg-type]
    model = Cached(dit, caching, 12)
    assert torch.equal(small_run(model, dit, batch_cfg=batch_cfg), small_run(dit, dit, batch_cfg=batch_cfg))
    assert len(model.caches) == (1 if batch_cfg else 2)
    assert dit.step_cache is None


@pytest.mark.parametrize(
    "rule",
    [
        *(pytest.param(rule, marks=pytest.mark.slow) for rule in ("deepcache", "teacache")),
        "taylorcache",
        "adaptive",
    ],
)
def test_both_ways_of_guidance_reuse_the_same_steps(rule: str) -> None:
    dit = golden_dit()
    caching = StepCaching(rule, 0.2, 0.9, 3, threshold=0.5)  # type: ignore[arg-type]
    one, two = Cached(dit, caching, 12), Cached(dit, caching, 12)
    joint, apart = small_run(one, dit, batch_cfg=True), small_run(two, dit)
    if rule != "adaptive":  # its indicator is that of the batch
        torch.testing.assert_close(joint, apart, atol=1e-4, rtol=1e-4)
    computed = [cache.computed for cache in (*one.caches.values(), *two.caches.values())]
    assert all(0 < len(steps) < 12 for steps in computed)


@pytest.mark.parametrize("rule", ["deepcache", "teacache", "taylorcache", "adaptive"])
def test_what_is_kept_is_what_the_plan_says(rule: StepCacheRule) -> None:
    dit = golden_dit()
    model = Cached(dit, StepCaching(rule, 0.2, 0.9, 3, threshold=0.5), 12)
    small_run(model, dit)
    for branch, condition in zip(model.caches.values(), (3, 5), strict=True):
        tokens = kept_tokens(rule, image=2 * 4 * 4, condition=condition)
        assert sum(each.numel() for each in branch.kept) == tokens * dit.config.hidden_size


def test_branches_that_begin_later_compute_first() -> None:
    dit = golden_dit()
    model = Cached(dit, StepCaching("taylorcache", 0.1, 0.9, 4, 0.1), 12)
    small_run(model, dit, guidance=Guidance(0.0, 0.7))
    unguided, guided = sorted((each.computed for each in model.caches.values()), key=len)
    assert guided[:4] == [0, 1, 2, 3]
    assert unguided[0] > 4
    assert unguided[1] == unguided[0] + 1  # nothing is kept after its first step


def test_terms_are_those_of_a_polynomial() -> None:
    """A parabola in the number of the step is extrapolated by its backward differences."""
    rule = TaylorCache([True] * 10)
    value = torch.zeros(1)

    def compute(step: int) -> None:
        rule.step = step
        rule.compute([lambda img, txt, vec: (torch.full((1,), float(step**2)), txt)], value, value, value)  # type: ignore[list-item]
        rule.computed.append(step)

    for step in (0, 1, 2, 4):
        compute(step)
    rule.step = 7
    first, second = (16 - 4) / 2, ((16 - 4) / 2 - (4 - 1)) / 2
    assert rule.reuse([], value, value).item() == pytest.approx(16 + 3 * first + 4.5 * second)


def test_a_small_threshold_computes_more() -> None:
    dit = golden_dit()
    full = small_run(dit, dit, steps=20)
    counts, errors = [], []
    for threshold in (0.05, 0.5, 5.0):
        model = Cached(dit, StepCaching("adaptive", 0, 1, 1, threshold), 20)
        errors.append((small_run(model, dit, steps=20) - full).norm().item())
        counts.append(sum(len(each.computed) for each in model.caches.values()))
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < counts[0]
    assert errors[0] < errors[-1]
    assert isinstance(next(iter(model.caches.values())), AdaptiveCache)


def test_step_distilled_checkpoints_are_refused() -> None:
    with torch.device("meta"):
        dit = DiT(replace(TINY, meanflow=True))
    with pytest.raises(UserError, match="step-distilled"):
        Cached(dit, StepCaching("deepcache", 0.2, 0.9, 4, 0.1), 8)
