"""Strengths of LoRAs that change while sampling equal loops written by hand, in which the transformer is changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hv15.config.sample import SampleSettings
from hv15.errors import UserError
from hv15.lora import apply_lora, read_lora, save_lora
from hv15.lora.reach import Reach, StrengthPart
from hv15.lora.weighted import WeightedLoRA, apply_all
from hv15.models import DiT
from hv15.sample.cached import Cached
from hv15.sample.graphs import Replayed
from hv15.sample.loras import check_reaches
from hv15.sample.noise import initial_noise
from hv15.sample.prompts import SampleSpec, StepCaching
from hv15.sample.sampler import Sampler
from hv15.sample.sampling import run, text_condition
from hv15.sample.schedule import sigmas
from tests.lora.samples import linears, random_lora
from tests.models.golden_dit import golden_dit
from tests.sample.conftest import make_lora, text_item
from tests.sample.test_graphs import Counting, Traced

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")
TEXT, NEGATIVE = text_item(1, glyphs=2), text_item(2, tokens=3)
LATE = Reach(strength_by=(StrengthPart(0.25, steps=(0.5, 1.0)),))
OFF = Reach(strength_by=(StrengthPart(0.0, steps=(0.5, 1.0)),))


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    return make_lora(tmp_path / "lora.safetensors", 1)


def transformer(lora: Path, multiplier: float) -> DiT:
    """One whose LoRA has the same strength in all steps."""
    dit = golden_dit()
    if multiplier:
        apply_lora(dit, read_lora(lora)[0], multiplier)
    return dit


@torch.no_grad()
def by_hand(spec: SampleSpec, models: Sequence[DiT | Cached]) -> Tensor:
    """Euler steps with guidance, each with a model of its own."""
    cond, uncond = text_condition(TEXT, None, glyphs=True), text_condition(NEGATIVE, None, glyphs=False)
    latents = initial_noise((1, 4, *spec.latent_size), spec.seed).float()
    levels = sigmas(spec.steps, spec.flow_shift).tolist()
    for step, (level, following) in enumerate(pairwise(levels)):
        model, time = models[step], torch.tensor([1000 * level])
        if isinstance(model, Cached):
            model.step = step
        x = torch.cat([latents, torch.zeros(1, 5, *spec.latent_size)], 1)
        unguided = model(x, time, uncond)
        velocity = unguided + spec.guidance_scale * (model(x, time, cond) - unguided)
        latents = latents + velocity * (following - level)
    return latents


def sampled(spec: SampleSpec, lora: Path, reach: Reach, *, multiplier: float = 0.8, batch_cfg: bool = False) -> Tensor:
    sampler = Sampler(golden_dit(), SampleSettings(), CPU)
    spec = replace(spec, guidance_batch="batched" if batch_cfg else "two_pass")
    return sampler.latents(spec, [WeightedLoRA(lora, multiplier, reach=reach)], TEXT, NEGATIVE, None, None)


@pytest.mark.parametrize(
    ("reach", "later", "batch_cfg"),
    [
        (LATE, 0.2, False),
        (OFF, 0.0, True),
        pytest.param(LATE, 0.2, True, marks=pytest.mark.slow),
        pytest.param(OFF, 0.0, False, marks=pytest.mark.slow),
    ],
)
def test_two_phases(spec: SampleSpec, lora: Path, reach: Reach, later: float, batch_cfg: bool) -> None:
    spec = replace(spec, steps=4)
    first, second = transformer(lora, 0.8), transformer(lora, later)
    expected = by_hand(spec, [first, first, second, second])
    assert_close(sampled(spec, lora, reach, batch_cfg=batch_cfg), expected, atol=5e-5, rtol=1e-5)
    assert not torch.allclose(expected, by_hand(spec, [first] * 4), atol=1e-2)


def test_blocks_in_some_steps_beside_another_lora(spec: SampleSpec, lora: Path, tmp_path: Path) -> None:
    """The second LoRA's strength is the same in all steps."""
    spec, other = replace(spec, steps=3), make_lora(tmp_path / "other.safetensors", 2)
    reach = Reach(strength_by=(StrengthPart(0.0, blocks=(0, 0), steps=(0.0, 0.34)),))
    tensors = read_lora(lora)[0]
    without_first_block = {key: value for key, value in tensors.items() if "double_blocks_0_" not in key}
    assert 0 < len(without_first_block) < len(tensors)
    early, late = transformer(other, -0.5), transformer(other, -0.5)
    apply_lora(early, without_first_block, 0.8)
    apply_lora(late, tensors, 0.8)
    loras = [WeightedLoRA(lora, 0.8, reach=reach), WeightedLoRA(other, -0.5)]
    found = Sampler(golden_dit(), SampleSettings(), CPU).latents(spec, loras, TEXT, NEGATIVE, None, None)
    assert_close(found, by_hand(spec, [early, late, late]), atol=5e-5, rtol=1e-5)


def test_layers_that_see_only_the_condition_follow_the_steps_too(spec: SampleSpec, tmp_path: Path) -> None:
    """What a condition gives is computed once for many steps, but with each strength anew."""
    spec, everywhere = replace(spec, steps=4), tmp_path / "everywhere.safetensors"
    save_lora(everywhere, random_lora(linears(golden_dit(), inside=""), rank=2), {})
    first, second = transformer(everywhere, 0.8), transformer(everywhere, 0.2)
    found = sampled(spec, everywhere, LATE)
    assert_close(found, by_hand(spec, [first, first, second, second]), atol=5e-5, rtol=1e-5)


CACHES = [
    StepCaching("deepcache", 0.1, 0.9, 3, 0.1),
    StepCaching("teacache", 0.1, 0.9, 4, 0.1),
    StepCaching("taylorcache", 0.1, 0.9, 4, 0.1),
    StepCaching("adaptive", 0.1, 0.9, 4, 0.3),
]
MARKS = {"deepcache": [pytest.mark.slow], "teacache": [pytest.mark.slow]}


@pytest.mark.parametrize(
    "caching", [pytest.param(each, id=each.rule, marks=MARKS.get(each.rule, [])) for each in CACHES]
)
def test_nothing_is_reused_of_steps_with_another_strength(spec: SampleSpec, lora: Path, caching: StepCaching) -> None:
    """As two transformers, each with a cache of its own."""
    spec = replace(spec, steps=12)
    models = [Cached(transformer(lora, strength), caching, spec.steps) for strength in (0.8, 0.2)]
    expected = by_hand(spec, [models[0]] * 6 + [models[1]] * 6)
    computed = [next(iter(model.caches.values())).computed for model in models]
    assert 6 in computed[1]
    assert len(computed[0]) + len(computed[1]) < 12  # some steps reuse others
    found = sampled(replace(spec, step_cache=caching), lora, LATE)
    assert_close(found, expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("recorder", [Counting, pytest.param(Traced, marks=pytest.mark.slow)])
def test_recorded_passes_are_recorded_again(spec: SampleSpec, lora: Path, recorder: type[Counting]) -> None:
    spec, dit, used = replace(spec, steps=6), golden_dit(), recorder()
    applied = apply_all(dit, [WeightedLoRA(lora, 0.8, reach=LATE)])
    found = run(Replayed(dit, used), spec, TEXT, NEGATIVE, None, None, device=CPU, loras=applied)
    assert torch.equal(found, sampled(spec, lora, LATE))
    assert (used.warm_ups, used.recordings, used.replays) == (4, 4, 8)  # two branches, two strengths, three steps each


def test_the_next_sample_begins_with_the_first_strength_again(spec: SampleSpec, lora: Path) -> None:
    sampler = Sampler(golden_dit(), SampleSettings(), CPU)
    loras = [WeightedLoRA(lora, 0.8, reach=OFF)]
    first, again = (sampler.latents(spec, loras, TEXT, NEGATIVE, None, None) for _ in range(2))
    assert torch.equal(first, again)
    plain = sampler.latents(spec, [], TEXT, NEGATIVE, None, None)
    assert torch.equal(
        plain, Sampler(golden_dit(), SampleSettings(), CPU).latents(spec, [], TEXT, NEGATIVE, None, None)
    )
    assert not torch.equal(plain, first)


def test_what_names_no_layer_is_refused_before_a_model_is_loaded(lora: Path) -> None:
    check_reaches([WeightedLoRA(lora, reach=LATE), WeightedLoRA(lora)])
    with pytest.raises(UserError, match=r"lora\.safetensors: include_patterns: 'qkv' matches none of the 28"):
        check_reaches([WeightedLoRA(lora, reach=Reach(include=("qkv",)))])
