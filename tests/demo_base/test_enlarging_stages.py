"""How the demo's models of super resolution are made: what they are shown, and that a stopped stage ends alike."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file, save_file

from demo_base import upsampler as upsampler_stage
from demo_base.basis import CellBasis
from demo_base.dit import new_dit
from demo_base.enlarger import (
    KEPT_BLOCKS,
    REST,
    SIZES,
    Enlarger,
    EnlargerStage,
    Lessons,
    begun,
    on_path,
    train_enlarger,
    unrolled,
    write_enlarger,
)
from demo_base.pairs import LARGE, WITHOUT_WORDS, Pairs, draw_pairs, drawn
from demo_base.upsampler import SIZES as UPSAMPLER_SIZES
from demo_base.upsampler import new_upsampler
from hv15.demo import world
from hv15.demo.models import TEXT, VISION
from hv15.models import Condition, load_dit, save_dit
from hv15.models.super_resolution import NOISE
from hv15.models.upsampler_files import load_upsampler
from hv15.models.upsamplers import Upsampler720
from hv15.sample.denoise import denoise
from hv15.sample.schedule import sigmas
from hv15.sample.super_resolution import LowResolution, resized

COUNT = 24


@pytest.fixture(scope="module")
def basis() -> CellBasis:
    """Smooth cells, so that what is enlarged tells of what is large."""
    draws = torch.Generator().manual_seed(0)
    waves = torch.cos(torch.pi * torch.arange(4)[:, None] * (torch.arange(16) + 0.5) / 16)  # (4, 16)
    patterns = torch.einsum("ip,jq->ijpq", waves, waves).reshape(16, 256)  # (16, p*q)
    colours = torch.randn(16, 2, 3, generator=draws)
    first = torch.einsum("kn,kmc->kmnc", patterns, colours).reshape(32, 768) / 200
    later = first[:, None].expand(32, 4, 768).reshape(32, 3072) / 4
    return CellBasis({
        "first.mean": torch.zeros(768),
        "first.map": first,
        "later.mean": torch.zeros(3072),
        "later.map": later.contiguous(),
    })  # fmt: skip


@pytest.fixture(scope="module")
def pairs(basis: CellBasis) -> Pairs:
    return draw_pairs(COUNT, basis, 0)


@pytest.fixture(scope="module")
def lessons(pairs: Pairs, basis: CellBasis) -> Lessons:
    draws = torch.Generator().manual_seed(0)
    texts = {text: torch.randn(5, TEXT["hidden_size"], generator=draws) for text in {"", *pairs.captions}}
    return Lessons(pairs, texts, torch.randn(COUNT, 25, VISION["hidden_size"], generator=draws), basis.metric())


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small transformer that shows something: its last layer is not zero."""
    dit = new_dit(0)
    with torch.no_grad():
        for parameter in dit.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    path = tmp_path_factory.mktemp("base") / "dit.safetensors"
    save_dit(dit, path)
    return path


def networks(base: Path) -> Enlarger:
    """Both networks at their start; the upsampler is no fitted one."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Enlarger(begun(load_dit(base)), Upsampler720(UPSAMPLER_SIZES))


def test_both_sizes_show_the_same_and_no_held_out_scene(pairs: Pairs, basis: CellBasis) -> None:
    assert LARGE == 96
    assert pairs.small.shape == (COUNT, 32, 3, 4, 4)
    assert pairs.large.shape == (COUNT, 32, 3, 6, 6)
    assert sum(caption == "" for caption in pairs.captions) == COUNT / WITHOUT_WORDS
    held_out = {scene.caption for scene in world.scenes() if scene.held_out}
    captions = {caption for caption, _, _ in (drawn(number, 0) for number in range(400))}
    assert len(captions) > 150
    assert not held_out & captions
    assert not any(word in caption for caption in captions for word in (world.CONCEPT, world.RING))
    # each cell's first number is its mean brightness, which does not change with the size
    brightness = [latents[:, 0].mean((2, 3)) for latents in (pairs.small, pairs.large)]
    torch.testing.assert_close(*brightness, atol=0.02, rtol=0.02)
    assert [image.shape for image in pairs.images] == [(96, 96, 3)] * COUNT
    assert not torch.equal(draw_pairs(2, basis, 1).small, pairs.small[:2])


def error(found: torch.Tensor, pairs: Pairs) -> float:
    return float((found - pairs.large).square().mean())


def test_each_convolution_of_the_upsampler_brings_it_nearer(
    pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = [error(resized(pairs.small, 6, 6), pairs)]
    fitted: Callable[..., torch.Tensor] = upsampler_stage._fitted_block

    def watched(block: object, x: torch.Tensor, *others: object) -> torch.Tensor:
        result = fitted(block, x, *others)
        errors.extend([error(x, pairs), error(result, pairs)])
        return result

    monkeypatch.setattr(upsampler_stage, "_fitted_block", watched)
    upsampler = new_upsampler(pairs, 0)
    with torch.no_grad():
        errors.append(error(upsampler(resized(pairs.small, 6, 6)), pairs))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.5 * errors[0]


def stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


class Watching(torch.nn.Module):
    """A stand-in for the transformer, which keeps what it is shown and returns zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]()

    def prepare(self, condition: Condition) -> Condition:
        return condition

    def forward(
        self, x: torch.Tensor, timestep: torch.Tensor, condition: Condition, *, timestep_r: torch.Tensor
    ) -> torch.Tensor:
        self.seen.append((x, timestep, timestep_r))
        on = (timestep >= 1000 * NOISE).float()
        assert torch.equal(x[:, 97].mean((1, 2, 3)), on)
        assert torch.equal(x[:, 65:97].abs().amax((1, 2, 3, 4)) > 0, on > 0)
        assert (condition.vision is not None) == bool(x[0, 64, 0].all())
        assert (timestep_r < timestep).all()
        return torch.zeros_like(x[:, :32])


@pytest.mark.parametrize("kind", ["flow", "unrolled"])
def test_the_transformer_is_shown_what_sampling_shows(
    kind: Literal["flow", "unrolled"], lessons: Lessons, base: Path
) -> None:
    """Low-resolution latents at and above the level of their noise only; the first frame in batches of i2v."""
    both, watching = networks(base), Watching()
    both.dit = watching  # type: ignore[assignment]
    stage = EnlargerStage(kind=kind, batch=12, i2v_prob=0.5, between=0.0)
    losses = [lessons.loss(both, stage, step).item() for step in range(6)]
    levels = 1000 * sigmas(6, 2.0)
    if kind == "flow":
        for _, timestep, end in watching.seen:
            torch.testing.assert_close(timestep, levels[:-1].repeat_interleave(2))
            torch.testing.assert_close(end, levels[1:].repeat_interleave(2), atol=1e-3, rtol=0)
    else:
        assert [(float(time[0]), float(end[0])) for _, time, end in watching.seen[:6]] == list(
            pairwise(levels.tolist())
        )
        # zeros are followed, so noise is what remains
        assert torch.equal(watching.seen[0][0][:, :32], watching.seen[5][0][:, :32])
        expected = 1 + lessons.error(lessons.pairs.large).mean().item()
        assert sum(losses) / len(losses) == pytest.approx(expected, rel=0.2)
    frames = [x for x, _, _ in watching.seen]
    assert {bool(x[0, 64, 0].all()) for x in frames} == {False, True}
    frame = next(x for x in frames if x[0, 64, 0].all())
    assert (frame[:, 64, 1:] == 0).all()
    assert any(torch.equal(frame[0, 32:64, 0], clip[:, 0]) for clip in lessons.pairs.large)


def test_the_path_leads_from_noise_to_the_clip_by_the_mean_velocity_of_each_step() -> None:
    """In any number of steps; by the level of the switch-off the clip is there."""
    x0, noise = torch.randn(2, 1, 32, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    for steps in (2, 6, 8):
        levels, x = sigmas(steps, 2.0), noise
        for level, end in pairwise(levels):
            here, there = (on_path(x0, noise, each[None]) for each in (level, end))
            torch.testing.assert_close(x, here, atol=1e-5, rtol=1e-5)
            x = x + (there - here) / (end - level) * (end - level)
        torch.testing.assert_close(x, x0, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(on_path(x0, noise, torch.tensor([2 / 3])), x0 + REST * noise, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(on_path(x0, noise, torch.tensor([1 / 3])), x0 + REST / 2 * noise, atol=1e-5, rtol=1e-5)


def test_an_unrolled_run_is_what_sampling_does(lessons: Lessons, base: Path) -> None:
    """Against the denoising loop of `hv15 upsample`."""
    both, stage = networks(base), EnlargerStage(kind="unrolled", batch=2, i2v_prob=1.0)
    with torch.no_grad():
        both.dit.final_layer.linear.weight.mul_(5)  # so that a step changes something
        batch = lessons._batch(stage, 0, torch.Generator().manual_seed(0))
        low = both.upsampler(batch.low)
        found = unrolled(both.dit, batch, low)
        expected = denoise(
            both.dit,
            batch.noise,
            batch.condition,
            None,
            sigmas(6, 2.0),
            1.0,
            batch.x0[:, :, :1],
            low=LowResolution(low),
        )
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (expected - batch.noise).square().mean() > 0.01


def test_errors_of_the_pixels_count_as_much_as_those_of_the_latents(basis: CellBasis, lessons: Lessons) -> None:
    """By clips whose cells the basis can show exactly."""
    draws = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 32, 3, 2, 2, generator=draws)
    cells, sizes = latents.movedim(1, -1).double(), []
    for name, part in (("first", cells[:, :1]), ("later", cells[:, 1:])):
        shown = torch.linalg.pinv(basis.tensors[f"{name}.map"].double())  # pixels x latents
        sizes.append((part @ shown.T).square().sum(-1) / shown.square().sum(0).mean())
    expected = (torch.cat(sizes, 1).mean((1, 2, 3)) / 32 + latents.square().mean((1, 2, 3, 4))) / 2
    torch.testing.assert_close(lessons.error(latents), expected.float(), atol=1e-4, rtol=1e-4)


def test_captions_are_dropped_and_some_are_wrong(lessons: Lessons) -> None:
    draws, stage = torch.Generator().manual_seed(0), EnlargerStage(caption_dropout=0.2, wrong_captions=0.5)
    without, described = (
        [lessons._caption(number, stage, draws) for _ in range(400)] for number in (lessons.pairs.captions.index(""), 1)
    )
    assert 0.4 < without.count("") / 400 < 0.75
    assert len({*without}) > 10
    assert 0.1 < described.count("") / 400 < 0.3
    assert {*described} == {"", lessons.pairs.captions[1]}


def test_the_transformer_begins_as_the_base_for_the_small_clip_as_for_noisy_latents(base: Path) -> None:
    """With all of the base's blocks it would be the base; what it adds is what it reads in the small clip."""
    whole = load_dit(base)
    dit = begun(whole)
    assert dit.config == SIZES
    assert dit.config.in_channels == 98
    draws = torch.Generator().manual_seed(0)
    x, low = torch.randn(2, 1, 65, 2, 3, 3, generator=draws)
    low[:, 32:] = 0
    condition = Condition(torch.randn(1, 4, 64, generator=draws), [4], torch.zeros(1, 0, SIZES.glyph_dim), [0])
    whole.double_blocks = torch.nn.ModuleList(whole.double_blocks[number] for number in KEPT_BLOCKS)
    with torch.no_grad():
        expected = whole(x + low, torch.tensor([700.0]), condition)
        found = dit(torch.cat([x, low[:, :33]], 1), torch.tensor([700.0]), condition, torch.tensor([500.0]))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_amplified_latents_say_the_same(base: Path, pairs: Pairs) -> None:
    plain, strong = networks(base), networks(base)
    strong.amplify(4.0)
    with torch.no_grad():
        before, after = (each.upsampler(resized(pairs.small[:2], 6, 6)) for each in (plain, strong))
    torch.testing.assert_close(after, 4 * before)
    weights = [each.dit.img_in.proj.weight for each in (plain, strong)]
    changed = (weights[0] != weights[1]).flatten(1).any(0)
    assert changed.nonzero().flatten().tolist() == list(range(65, 97))
    torch.testing.assert_close(weights[1][:, 65:97] * 0.3 * 4, weights[0][:, 65:97], msg="as without noise")


@pytest.mark.parametrize("kind", ["flow", pytest.param("unrolled", marks=pytest.mark.slow)])
def test_a_cycle_learns_and_goes_on_to_the_same_weights_when_stopped(
    kind: Literal["flow", "unrolled"], lessons: Lessons, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate = 1e-3 if kind == "unrolled" else 0.0
    stage = EnlargerStage(
        kind=kind, steps=4, batch=2, warmup=1, i2v_prob=0.5, state_every=1, rate=1e-3, upsampler_rate=rate
    )
    both = networks(base).requires_grad_(False)  # as the loaders return them
    whole = load_file(train_enlarger(stage, both, lessons, tmp_path / "whole", settings="x"))
    still = {key for key, value in networks(base).state_dict().items() if torch.equal(value, whole[key])}
    upsampler = {key for key in whole if key.startswith("upsampler.")}
    assert still & upsampler == (set() if rate else upsampler)
    still -= upsampler
    # captions quote no word, and nothing reads the text after the last block
    last = f"dit.double_blocks.{SIZES.num_blocks - 1}.txt_"
    unread = ("dit.byt5_in.", *(f"{last}{part}" for part in ("attn_proj", "attn_q", "mlp")))
    assert all(key.startswith(unread) for key in still), sorted(still)

    taken = iter(range(10))
    with monkeypatch.context() as patch:
        patch.setattr("demo_base.loop.Requests.take", lambda _: (False, False, False) if next(taken) < 2 else stop())
        with pytest.raises(KeyboardInterrupt):
            train_enlarger(stage, networks(base), lessons, tmp_path / "stopped", settings="x")
    resumed = load_file(train_enlarger(stage, networks(base), lessons, tmp_path / "stopped", settings="x"))
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


def test_the_networks_are_written_for_the_loaders(base: Path, tmp_path: Path) -> None:
    both = networks(base)
    save_file(both.state_dict(), tmp_path / "cycle.safetensors")
    write_enlarger(tmp_path / "cycle.safetensors", tmp_path)
    upsampler = load_upsampler(tmp_path / "upsampler.safetensors")
    assert upsampler.resolution == "720p"
    torch.testing.assert_close(dict(upsampler.state_dict()), dict(both.upsampler.state_dict()), atol=1e-3, rtol=1e-3)
    dit = load_dit(tmp_path / "sr_dit.safetensors", dtype=torch.float32, super_resolution=True)
    for key, value in both.dit.state_dict().items():
        assert (dit.state_dict()[key] - value).norm() <= 0.05 * value.norm(), key
