"""Super resolution in a plan: its memory against what is really done on the CPU, and what a project asks for."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from hv15.config import Settings
from hv15.memory import WEIGHTS
from hv15.models import DiTConfig
from hv15.models.upsamplers import Upsampler720, Upsampler720Config, Upsampler1080, Upsampler1080Config
from hv15.plan.advice import advise
from hv15.plan.devices import Device, device_of_size, find_device
from hv15.plan.disk import ITEM, disk_uses
from hv15.plan.enlarging import enlarging, upsampling
from hv15.plan.job_requests import job_requests
from hv15.plan.meter import Meter
from hv15.plan.metered_steps import PassSize, run_denoising
from hv15.plan.stages import StagePlanner
from hv15.project import Project
from tests.models.golden_dit import TINY

GIB = 2**30
SMALL = replace(TINY, num_blocks=3, hidden_size=64, num_heads=2, rope_dims=(8, 12, 12), meanflow=True)
ENLARGING = replace(SMALL, low_resolution=True)
SIZE = PassSize(samples=1, latent=(3, 6, 8), text_tokens=12, i2v=False)
TO_720, TO_1080 = Upsampler720Config(4, 8, 2), Upsampler1080Config(4, (8, 16), 1)


def settings(**sample: Any) -> Settings:
    return Settings.model_validate({"models": {"source": "demo"}, "sample": sample})


@pytest.mark.parametrize(
    "sample",
    [
        {},
        pytest.param({"split_attn": True}, marks=pytest.mark.slow),
        pytest.param({"step_cache": {"rule": "adaptive"}}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_step_takes_what_is_planned(sample: dict[str, Any]) -> None:
    """One pass, whatever caches and guidance the small sample has; with the small video's channels."""
    asked = settings(**sample)
    planned = enlarging(asked, ENLARGING, TO_720, torch.float32, SIZE, with_lora=False, gpu=False)
    plain = settings(**{name: value for name, value in sample.items() if name != "step_cache"})
    done = run_denoising(plain, ENLARGING, torch.float32, SIZE, guided=False, with_lora=False, device="cpu")
    assert planned.peak == pytest.approx(done.peak, rel=0.001)
    without = run_denoising(plain, SMALL, torch.float32, SIZE, guided=False, with_lora=False)
    assert planned.flops > without.flops


@pytest.mark.parametrize("config", [TO_720, TO_1080])
def test_the_upsampler_takes_what_is_planned(config: Upsampler720Config | Upsampler1080Config) -> None:
    latent = (5, 6, 8)
    network = Upsampler720(config) if isinstance(config, Upsampler720Config) else Upsampler1080(config)
    with torch.no_grad(), Meter("cpu") as meter:
        meter.assign(WEIGHTS, network)
        network(torch.zeros(1, config.channels, *latent))
    planned = upsampling(config, latent)
    assert planned.peak == pytest.approx(meter.peak, rel=0.001)
    assert planned.flops == meter.flops


def test_a_wide_upsampler_is_the_peak() -> None:
    wide = Upsampler720Config(4, 512, 1)
    planned = enlarging(settings(), ENLARGING, wide, torch.float32, SIZE, with_lora=False, gpu=False)
    assert planned.peak == upsampling(wide, SIZE.latent).peak


def project(folder: Path, **sample: Any) -> Project:
    """The published models, none of which is there."""
    prompt = {"name": "one", "prompt": "a prompt"}
    config = {
        "models": {"source": "hub", "variant": "720p_t2v"},
        "sample": {"sr": "auto", "prompts": [prompt], **sample},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return Project(folder / "config.yaml")


PROMPTS = [
    {"name": "wide", "prompt": "a", "video_size": [720, 1280], "seeds": [1, 2]},
    {"name": "square", "prompt": "b", "video_size": [960, 960], "infer_steps": 3},
    {"name": "small", "prompt": "c", "sr": "off"},
]


def test_what_a_project_asks_for(tmp_path: Path) -> None:
    """Each seed, and each prompt that is not small, at its own large size; not what is without the LoRA."""
    planner = StagePlanner(project(tmp_path, prompts=PROMPTS), find_device("h100"))
    assert [(each.name, each.height, each.width, each.steps) for each in planner.work.enlarged] == [
        ("wide.seed1", 1072, 1904, 8),
        ("wide.seed2", 1072, 1904, 8),
        ("square", 1440, 1440, 8),
    ]
    assert planner.names[-2:] == ["upsample", "decode large"]
    off = StagePlanner(project(tmp_path, sr="off"), find_device("h100"))
    assert not {"upsample", "decode large"} & {*off.names}


@pytest.mark.slow
def test_what_is_enlarged_is_counted(tmp_path: Path) -> None:
    planner = StagePlanner(project(tmp_path, prompts=PROMPTS), find_device("h100"))
    steps, decoding = planner.stage("upsample"), planner.stage("decode large")
    assert (steps.unit, steps.count, decoding.unit, decoding.count) == ("step", 24, "video", 3)
    assert decoding.flops > planner.stage("decode").flops, "of more tiles, with the same peak"


@pytest.mark.slow
def test_the_largest_official_video(tmp_path: Path) -> None:
    """247,163 tokens: weights of 15.5 GiB and less than 6 beside them; on smaller cards with swapped blocks."""
    opened = project(tmp_path, video_size=[720, 1280])
    planner = StagePlanner(opened, device_of_size("24GiB"))
    (video,) = planner.work.enlarged
    assert torch.Size(video.latent).numel() == 247_163
    stage = planner.stage("upsample")
    assert stage.fits
    assert stage.peak - stage.parts[WEIGHTS] < 6 * GIB
    small = copy(planner)  # it knows what stages take
    small.device = device_of_size("10GiB")
    found = advise(small, "upsample")
    assert found is not None
    assert found.changes.keys() == {"sample.blocks_to_swap"}
    assert found.planned is not None
    assert found.planned.fits


@pytest.mark.slow
def test_a_cluster_is_asked_for_its_time_and_the_disk_for_its_latents(tmp_path: Path) -> None:
    opened = project(tmp_path, video_size=[720, 1280])
    device = find_device("h100")
    requests = job_requests(opened, device)
    stage = StagePlanner(opened, device).stage("upsample")
    assert stage.each is not None
    assert requests["upsample"].each == pytest.approx(8 * stage.each.most + requests["decode_large"].each, rel=1e-6)
    (use,) = disk_uses(opened)
    assert use.needs["enlarged latents"] == 4 * 32 * 247_163 + ITEM


@pytest.mark.slow
def test_a_cpu_has_no_times(tmp_path: Path) -> None:
    cpu = StagePlanner(project(tmp_path), Device("a CPU", 64 * GIB, None, gpu=False, bfloat16=False))
    assert cpu.stage("upsample").each is None


def test_published_sizes() -> None:
    """Where no file is there, the transformer is planned with 98 input channels and mean flow."""
    with torch.device("meta"):
        from hv15.models import DiT

        dit = DiT(DiTConfig(meanflow=True, low_resolution=True))
    assert sum(parameter.numel() for parameter in dit.parameters()) == 8_331_398_432
