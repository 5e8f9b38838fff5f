"""Super resolution against runs of the official program, and its rules one at a time."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.testing import assert_close

from hv15.choices import EnlargedResolution
from hv15.errors import UserError
from hv15.models.latents import condition_channels
from hv15.models.super_resolution import SUPER_RESOLUTIONS, named_resolution
from hv15.sample.denoise import denoise
from hv15.sample.noise import initial_noise, low_resolution_noise
from hv15.sample.resolutions import enlarged_size, official_sizes
from hv15.sample.schedule import sigmas
from hv15.sample.super_resolution import LowResolution, resized, upsampled, with_noise
from tests.models.golden_dit import tensors
from tests.models.golden_sr import golden_sr_dit, recorded_run, upsampler_weights
from tests.sample.conftest import StandIn
from tests.sample.test_denoise import condition

RUNS = {"sr_t2v_720p": 6, "sr_i2v_1080p": 8, "sr_t2v_no_meanflow": 6}
"""Recorded runs and their steps."""
SEED = 1234
SIZE_MAP = json.loads(Path(__file__).with_name("sr_size_map.json").read_text())
"""Written by the official program: [[low width, low height], [width, height]]."""


@pytest.fixture(scope="module")
def upsampler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("upsampler") / "720p.safetensors"
    save_file(upsampler_weights("w720"), path)
    return path


def low_resolution(run: dict[str, Tensor]) -> LowResolution:
    """From the recorded tensors, because a rounding error before the cast to bfloat16 would be visible after it."""
    return LowResolution(with_noise(run["mid/lq_upsampled"], run["mid/lq_noise"]))


@pytest.mark.numeric
@pytest.mark.parametrize("case", ["one_frame", "clip", "batch"])
def test_frames_are_resized_bilinearly(case: str) -> None:
    recorded = tensors("sr_upsamplers")
    wanted = recorded[f"{case}/resized"]
    assert_close(resized(recorded[f"{case}/in"], *wanted.shape[3:]), wanted, atol=1e-6, rtol=0)


@pytest.mark.numeric
@pytest.mark.parametrize("name", RUNS)
def test_what_the_official_program_starts_from(name: str, upsampler: Path) -> None:
    run, _ = recorded_run(name)
    wanted = run["mid/lq_upsampled"]
    found = upsampled(run["in/lq_latents"], *wanted.shape[3:], upsampler, torch.device("cpu"))
    assert found.dtype == torch.float32
    assert_close(found.bfloat16(), wanted, atol=1e-2, rtol=1e-2)
    first = run["mid/condition_first"]
    channels = low_resolution(run).channels(1.0, wanted.float())
    assert_close(channels, first[:, 33:], atol=1e-6, rtol=0)
    noise, official = initial_noise(wanted.shape, SEED), run["mid/initial_noise"].float()
    # Drawn in fp32 and rounded to bf16: where processors differ in the last bit, a few are rounded the other way.
    assert_close(noise, official, atol=1e-6, rtol=2.0**-7)
    assert (noise == official).float().mean() > 0.99


@pytest.mark.numeric
@pytest.mark.parametrize(("name", "steps"), RUNS.items())
def test_final_latents_of_the_official_program(name: str, steps: int) -> None:
    run, cond = recorded_run(name)
    dit = golden_sr_dit(meanflow=name != "sr_t2v_no_meanflow")
    levels, noise = sigmas(steps, 2.0), run["mid/initial_noise"].float()
    assert_close(1000 * levels[:-1], run["mid/timesteps"], atol=1e-3, rtol=0)
    if dit.config.meanflow:
        assert_close(1000 * levels[1:], run["mid/timesteps_r"], atol=1e-3, rtol=0)
    image = run.get("in/image_latent")
    found = denoise(dit, noise, cond, None, levels, 1.0, image, low=low_resolution(run))
    assert_close(found, run["out/latents"], atol=5e-5, rtol=0)


@pytest.mark.numeric
@pytest.mark.parametrize(("name", "steps"), RUNS.items())
def test_each_velocity_of_the_official_program(name: str, steps: int) -> None:
    run, cond = recorded_run(name)
    dit = golden_sr_dit(meanflow=name != "sr_t2v_no_meanflow")
    inputs = {"step0/latents_in": run["mid/initial_noise"].float(), **run}
    seen = 0
    for step, (level, following) in enumerate(pairwise(sigmas(steps, 2.0).tolist())):
        latents, wanted = inputs.get(f"step{step}/latents_in"), run.get(f"step{step}/velocity")
        if latents is None or wanted is None:
            continue
        constant = condition_channels(run.get("in/image_latent"), latents)
        x = torch.cat([latents, constant, low_resolution(run).channels(level, latents)], dim=1)
        ends = torch.tensor([1000 * following]) if dit.config.meanflow else None
        assert_close(dit(x, torch.tensor([1000 * level]), cond, ends), wanted, atol=1e-5, rtol=0)
        seen += 1
    assert seen >= 2


@pytest.mark.parametrize("resolution", SUPER_RESOLUTIONS)
def test_the_low_resolution_is_switched_off_below_its_noise(resolution: EnlargedResolution) -> None:
    """Latents and mask; the channels of the first image stay."""
    model = StandIn(lambda x, timestep, cond: torch.zeros_like(x[:, :4]), meanflow=True)
    chosen, shape = SUPER_RESOLUTIONS[resolution], (1, 4, 2, 3, 5)
    low, first = torch.randn(shape), torch.randn(1, 4, 1, 3, 5)
    levels = sigmas(chosen.infer_steps, chosen.flow_shift)
    denoise(model, torch.randn(shape), condition(), None, levels, 1.0, first, low=LowResolution(low))
    is_on = [bool(x[:, 13].all()) for x, *_ in model.calls]
    half = chosen.infer_steps // 2
    assert is_on == [True] * half + [False] * half
    for (x, timestep, *_), on in zip(model.calls, is_on, strict=True):
        assert on == (timestep.item() >= 700)
        assert torch.equal(x[:, 9:13], low) if on else not x[:, 9:].any()
        assert torch.equal(x[:, 4:8, :1], first)
        assert bool((x[:, 8, 0] == 1).all())


def test_a_step_at_the_noise_itself_still_sees_it() -> None:
    """13 steps with shift 2 have one at a timestep of 700."""
    level = sigmas(13, 2.0)[6].item()
    assert level == pytest.approx(0.7)
    like = torch.zeros(1, 4, 1, 2, 2)
    assert LowResolution(like + 1).channels(level, like).all()
    assert not LowResolution(like + 1).channels(0.6999, like).any()


def test_its_noise_is_its_own_and_the_same_each_time() -> None:
    shape = (1, 32, 2, 8, 8)
    noise, other = low_resolution_noise(shape, 3), initial_noise(shape, 3)
    assert torch.equal(noise, low_resolution_noise(shape, 3))
    assert not torch.equal(noise, low_resolution_noise(shape, 4))
    assert torch.equal(noise, noise.bfloat16().float())
    correlation = torch.corrcoef(torch.stack([noise.flatten(), other.flatten()]))[0, 1]
    assert abs(correlation) < 0.1
    assert_close(LowResolution.noised(torch.ones(shape), 3).latents, 0.3 + 0.7 * noise, atol=1e-6, rtol=0)


@pytest.mark.parametrize("resolution", SUPER_RESOLUTIONS)
def test_sizes_are_those_of_the_official_program(resolution: EnlargedResolution) -> None:
    low = SUPER_RESOLUTIONS[resolution].low
    pairs = SIZE_MAP[f"{low}_to_{resolution}"]
    assert len(pairs) == len(official_sizes(low))
    for (width, height), (wide, high) in pairs:
        assert enlarged_size(height, width, resolution) == (high, wide)


def test_other_sizes_grow_as_a_square_does() -> None:
    assert enlarged_size(960, 960, "1080p") == (1440, 1440)
    assert enlarged_size(64, 96, "720p") == (96, 144)
    assert enlarged_size(480, 640, "1080p") == (720, 960)
    assert enlarged_size(16, 16, "720p") == (32, 32)


@pytest.mark.parametrize(
    ("path", "config", "found"),
    [
        ("720p_sr_distilled/model.safetensors", None, "720p"),
        ("x/hunyuanvideo1.5_1080p_sr_distilled_fp8_scaled.safetensors", None, "1080p"),
        ("x/model.safetensors", {"ideal_resolution": "1080p"}, "1080p"),
        ("720p_sr_distilled/model.safetensors", {"ideal_resolution": "1080p"}, "1080p"),
        ("720p_sr_distilled/model.safetensors", {"ideal_resolution": None}, "720p"),
        ("1080p_t2v/model.safetensors", {"ideal_resolution": "480p"}, None),
        ("x/1720p_sr.safetensors", None, None),
    ],
)
def test_which_of_the_two_a_file_is(tmp_path: Path, path: str, config: object, found: str | None) -> None:
    file = tmp_path / path
    file.parent.mkdir()
    if config is not None:
        (file.parent / "config.json").write_text(json.dumps(config))
    assert named_resolution(file) == found


def test_an_upsampler_of_other_latents_is_refused(upsampler: Path) -> None:
    with pytest.raises(UserError, match="corrects latents of 32 channels, but these have 4"):
        upsampled(torch.zeros(1, 4, 1, 2, 2), 3, 3, upsampler, torch.device("cpu"))
