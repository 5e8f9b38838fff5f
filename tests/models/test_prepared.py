"""What a condition gives once for all steps: the same bits in each pass, and nothing of it is computed again."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise, product

import pytest
import torch
from torch import Tensor, nn

from hv15.models import Condition, DiT, PreparedCondition
from hv15.models.latents import condition_channels
from hv15.models.prepared import PreparedText
from hv15.sample.denoise import Guidance, denoise
from hv15.sample.schedule import sigmas
from tests.models.golden_dit import TINY, case, case_info, condition, golden_dit

pytestmark = pytest.mark.numeric

TIMES = (1000.0, 731.25, 4.0)
WHOLE, PART = (0.0, 1.0), (0.3, 0.9)
ONCE = (
    "vision_in",
    "byt5_in",
    "txt_in.input_embedder",
    "txt_in.c_embedder",
    "txt_in.individual_token_refiner.blocks.0.self_attn_qkv",
    "txt_in.individual_token_refiner.blocks.0.self_attn_proj",
)
EACH_STEP = (
    "time_in",
    "img_in",
    "txt_in.t_embedder",
    "txt_in.individual_token_refiner.blocks.0.adaLN_modulation",
    "txt_in.individual_token_refiner.blocks.0.mlp",
    "txt_in.individual_token_refiner.blocks.1.self_attn_qkv",
)


class Anew:
    """Calls the transformer with the condition itself in each pass, as a training does."""

    def __init__(self, dit: DiT) -> None:
        self.dit, self.config = dit, dit.config

    def prepare(self, cond: Condition) -> Condition:
        return cond

    def __call__(self, x: Tensor, timestep: Tensor, cond: Condition, timestep_r: Tensor | None = None) -> Tensor:
        return self.dit(x, timestep, cond, timestep_r)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, torch.float32) for name in case_info()),
        *(
            pytest.param(name, torch.bfloat16, marks=[] if name == "i2v_batch" else [pytest.mark.slow])
            for name in case_info()
        ),
    ],
    ids=str,
)
def test_a_pass_has_the_same_bits(name: str, dtype: torch.dtype) -> None:
    dit, recorded = golden_dit().to(dtype), case(name)
    cond = condition(recorded, image=case_info()[name]["task"] == "i2v").to("cpu", dtype)
    x = recorded["in/hidden_states"]
    with torch.no_grad():
        prepared = dit.prepare(cond)
        for time in TIMES:
            timestep = torch.full((len(x),), time)
            assert torch.equal(dit(x, timestep, prepared), dit(x, timestep, cond))


def test_gradients_have_the_same_bits() -> None:
    recorded = case("i2v_batch")
    cond, gradients = condition(recorded, image=True), []
    for prepare in (False, True):
        dit = golden_dit().requires_grad_(True)
        given = dit.prepare(cond) if prepare else cond
        dit(recorded["in/hidden_states"], recorded["in/timestep"], given).square().mean().backward()
        gradients.append({name: each.grad for name, each in dit.named_parameters() if each.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradient, gradients[1][name]) for name, gradient in gradients[0].items())


def branches(task: str) -> tuple[Condition, Condition, Tensor | None]:
    """Positive and negative condition of unequal lengths, and the first frame."""
    generator = torch.Generator().manual_seed(5)

    def states(tokens: int, width: int) -> Tensor:
        return torch.randn(1, tokens, width, generator=generator)

    vision = states(6, TINY.vision_dim) if task == "i2v" else None
    cond = Condition(states(7, TINY.text_dim), [7], states(3, TINY.glyph_dim), [3], vision)
    uncond = Condition(states(4, TINY.text_dim), [4], states(0, TINY.glyph_dim), [0], vision)
    first = torch.randn(1, TINY.latent_channels, 1, 4, 5, generator=generator) if task == "i2v" else None
    return cond, uncond, first


COVERING = (("t2v", False, WHOLE), ("t2v", True, PART), ("i2v", False, PART), ("i2v", True, WHOLE))


@pytest.mark.parametrize(
    ("task", "batch_cfg", "interval"),
    [
        pytest.param(*each, marks=[] if each in COVERING else [pytest.mark.slow])
        for each in product(("t2v", "i2v"), (False, True), (WHOLE, PART))
    ],
)
def test_a_sample_has_the_same_bits(task: str, batch_cfg: bool, interval: tuple[float, float]) -> None:
    dit, noise = golden_dit(), torch.randn(1, TINY.latent_channels, 3, 4, 5)
    cond, uncond, first = branches(task)
    arguments = noise, cond, uncond, sigmas(5, 5.0), 6.0, first
    options = {"batch_cfg": batch_cfg, "guidance": Guidance(*interval)}
    found = denoise(dit, *arguments, **options)  # type: ignore[arg-type]
    assert torch.equal(found, denoise(Anew(dit), *arguments, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("batch_cfg", [False, True])
def test_a_model_that_changes_between_steps_is_prepared_again(batch_cfg: bool) -> None:
    """As by a LoRA on the text's projection whose strength depends on the step."""
    cond, uncond, _ = branches("t2v")
    noise, found = torch.randn(1, TINY.latent_channels, 3, 4, 5), list[Tensor]()
    for wrap in (lambda dit: dit, Anew):
        dit = golden_dit()

        def begin_step(step: int, dit: DiT = dit) -> bool:
            if step == 2:
                dit.txt_in.input_embedder.weight.mul_(1.5)
            return step == 2

        options = {"batch_cfg": batch_cfg, "begin_step": begin_step}
        found.append(denoise(wrap(dit), noise, cond, uncond, sigmas(4, 5.0), 6.0, **options))
    assert torch.equal(*found)
    assert not torch.allclose(found[0], denoise(golden_dit(), noise, cond, uncond, sigmas(4, 5.0), 6.0), atol=1e-3)


@pytest.mark.parametrize("batch_cfg", [False, True])
def test_each_part_is_computed_as_often_as_it_must_be(batch_cfg: bool) -> None:
    dit, steps, calls = golden_dit(), 5, Counter[str]()
    for name in (*ONCE, *EACH_STEP):
        dit.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.update([name]))
    cond, uncond, first = branches("i2v")
    denoise(
        dit, torch.randn(1, TINY.latent_channels, 3, 4, 5), cond, uncond, sigmas(steps, 5.0), 6.0, first,
        batch_cfg=batch_cfg,
    )  # fmt: skip
    passes = 1 if batch_cfg else 2
    assert {name: calls[name] for name in ONCE} == {
        name: 1 if name == "byt5_in" else passes
        for name in ONCE  # the negative prompt has no quoted texts
    }
    assert {name: calls[name] for name in EACH_STEP} == dict.fromkeys(EACH_STEP, passes * steps)


def test_nothing_that_is_prepared_depends_on_the_step() -> None:
    """The official loop, written out: latents and timestep change, the prepared condition is the same object."""
    dit, (cond, _, first) = golden_dit(), branches("i2v")
    latents = torch.randn(1, TINY.latent_channels, 3, 4, 5)
    start, prepared = latents, dit.prepare(cond)
    before = [tensor.clone() for tensor in prepared.tensors]
    with torch.no_grad():
        for level, following in pairwise(sigmas(4, 5.0).tolist()):
            x = torch.cat([latents, condition_channels(first, like=latents)], 1)
            latents = latents + dit(x, torch.tensor([1000 * level]), prepared) * (following - level)
    assert torch.equal(latents, denoise(dit, start, cond, None, sigmas(4, 5.0), 1.0, first))
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(prepared.tensors, before, strict=True))


def test_a_copy_shares_no_memory() -> None:
    prepared = golden_dit().prepare(branches("i2v")[0])
    copy = prepared.copied()
    assert isinstance(copy, PreparedCondition)
    assert isinstance(copy.text, PreparedText)
    assert (copy.lengths, copy.batch) == (prepared.lengths, prepared.batch) == ((6, 3, 7), 1)
    for own, other in zip(copy.tensors, prepared.tensors, strict=True):
        assert torch.equal(own, other)
        assert own.data_ptr() != other.data_ptr()


def test_a_change_of_the_weights_is_seen_after_preparing_again() -> None:
    """Nothing is remembered in the modules."""
    dit, (cond, *_) = golden_dit(), branches("t2v")
    x, time = torch.randn(1, TINY.in_channels, 3, 4, 5), torch.tensor([700.0])
    with torch.no_grad():
        before = dit(x, time, dit.prepare(cond))
        layer = dit.txt_in.input_embedder
        assert isinstance(layer, nn.Linear)
        layer.weight.mul_(1.5)
        after = dit(x, time, dit.prepare(cond))
        assert not torch.allclose(after, before, atol=1e-3)
        assert torch.equal(after, dit(x, time, cond))
