"""The advice: what it names makes the stage fit, and nothing cheaper does."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from hv15.config.presets import preset_text
from hv15.out_of_memory import StageName
from hv15.plan.advice import Changes, advise, possible, saves_memory
from hv15.plan.devices import Device, device_of_size, find_device
from hv15.plan.stage_settings import SECTION, STAGES, section_of
from hv15.plan.stages import StagePlanner
from hv15.project import Project

GIB = 2**30


@pytest.fixture(scope="module")
def planner(tmp_path_factory: pytest.TempPathFactory) -> StagePlanner:
    """The published model at 832 x 480, 25 frames, on a GPU that is too small for it."""
    folder: Path = tmp_path_factory.mktemp("project")
    config = yaml.safe_load(preset_text("t2v-24gb"))
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "clips").mkdir()
    return StagePlanner(Project(folder / "config.yaml"), device_of_size("12GiB"))


def changed(planner: StagePlanner, section: str, **values: object) -> int:
    settings = planner.project.settings
    part = getattr(settings, section).model_copy(update=values)
    return planner.stage("denoise", settings.model_copy(update={section: part})).needed


def test_what_fits_needs_no_advice(planner: StagePlanner):
    assert advise(planner, "denoise", planner.stage("denoise").needed) is None


def test_the_fewest_blocks_that_make_it_fit(planner: StagePlanner):
    """One block fewer does not fit, and neither does what is cheaper than swapping blocks."""
    found = advise(planner, "denoise")
    assert found is not None
    assert found.planned is not None
    assert list(found.changes) == ["sample.blocks_to_swap"]
    count = found.changes["sample.blocks_to_swap"]
    assert changed(planner, "sample", blocks_to_swap=count) == found.planned.needed <= 12 * GIB
    assert changed(planner, "sample", blocks_to_swap=count - 1) > 12 * GIB
    assert changed(planner, "sample", split_attn=True) > 12 * GIB


@pytest.mark.slow
def test_guidance_as_one_batch_is_planned_and_undone_first(planner: StagePlanner):
    """Of 10,920 cells, `auto` makes two passes; by memory, one batch is made only where it fits."""
    plain = planner.stage("denoise").needed
    ways = {way: changed(planner, "sample", guidance_batch=way) for way in ("two_pass", "by_memory", "batched")}
    assert ways["two_pass"] == ways["by_memory"] == plain < ways["batched"]
    settings = planner.project.settings
    batched = settings.model_copy(update={"sample": settings.sample.model_copy(update={"guidance_batch": "batched"})})
    planner.project.settings, before = batched, settings
    try:
        found = advise(planner, "denoise", ways["batched"] - 1)
    finally:
        planner.project.settings = before
    assert found is not None
    assert found.changes == {"sample.guidance_batch": "two_pass"}


@pytest.mark.slow
def test_changes_together_where_one_is_not_enough(planner: StagePlanner):
    """Just below what swapping alone can reach."""
    alone = changed(planner, "sample", blocks_to_swap=51)
    found = advise(planner, "denoise", alone - 1)
    assert found is not None
    assert found.planned is not None
    assert found.planned.needed < alone
    assert len(found.changes) > 1


@pytest.mark.slow
def test_what_no_setting_makes_fit(planner: StagePlanner):
    found = advise(planner, "denoise", GIB // 2)
    assert found is not None
    assert found.planned is None
    assert "larger GPU" in str(found)


@pytest.mark.parametrize(
    ("stage", "now", "changes", "wanted"),
    [
        ("denoise", {"quantize": "nf4"}, {"quantize": "fp8"}, False),
        ("denoise", {"quantize": "int8"}, {"quantize": "nf4"}, True),
        ("decode", {"vae_sample_size": 128}, {"vae_sample_size": 256}, False),
        ("decode", {"vae_sample_size": 0}, {"vae_sample_size": 256}, True),
        ("train", {"blocks_to_swap": 52}, {"blocks_to_swap": 51}, False),
        ("denoise", {"guidance_batch": "batched"}, {"guidance_batch": "two_pass"}, True),
        ("denoise", {"guidance_batch": "auto"}, {"guidance_batch": "two_pass"}, False),
        ("denoise", {"guidance_batch": "by_memory"}, {"guidance_batch": "two_pass"}, False),
    ],
)
def test_nothing_weaker_than_what_is_set_is_proposed(
    planner: StagePlanner, stage: StageName, now: dict[str, object], changes: Changes, wanted: bool
):
    settings = planner.project.settings
    section = section_of(stage, settings).model_copy(update=now)
    assert saves_memory(settings.model_copy(update={SECTION[stage]: section}), stage, changes) == wanted


@pytest.mark.slow
def test_a_cpu_is_never_told_to_move_blocks_to_its_own_memory(planner: StagePlanner):
    """They are there already: what waits costs as much as what does not."""
    cpu = StagePlanner(planner.project, Device("this machine's CPU", 12 * GIB, None, gpu=False, bfloat16=False))
    moving = {"blocks_to_swap", "gradient_checkpointing_cpu_offload", "text_encoder_cpu"}
    for name in STAGES:
        assert not any(moving & changes.keys() for changes in possible(cpu, name))
    for name in ("denoise", "encode texts"):
        found = advise(cpu, name, cpu.stage(name).needed - 1)
        assert found is not None
        assert not [setting for setting in found.changes if setting.split(".")[1] in moving]
    settings = cpu.project.settings
    swapped = settings.sample.model_copy(update={"blocks_to_swap": 20})
    stage = cpu.stage("denoise", settings.model_copy(update={"sample": swapped}))
    assert stage.needed >= cpu.stage("denoise").needed
    assert stage.host == 0, "it is told once"


@pytest.mark.slow
def test_times_include_the_loading_of_the_models(planner: StagePlanner, tmp_path: Path):
    """16.7 GB of transformer at 0.7 to 2 GB/s, once for all videos; files that are there are read as they are."""
    gpu = copy(planner)  # it knows what stages take
    gpu.device = find_device("4090")
    stage = gpu.stage("denoise")
    gpu.work = replace(gpu.work, videos=gpu.work.videos * 3)
    of_all = gpu.stage("denoise")
    assert (of_all.loads, of_all.count) == (stage.loads, 3 * stage.count) == (1, 3 * stage.count)
    assert stage.loading is not None
    assert (stage.loading.least, stage.loading.most) == pytest.approx((16.7 / 2 + 3, 16.7 / 0.7 + 12), rel=0.02)
    assert stage.each is not None
    assert stage.total is not None
    assert stage.total.most == pytest.approx(stage.count * stage.each.most + stage.loads * stage.loading.most)
    assert stage.total_seconds == pytest.approx(stage.count * stage.seconds + stage.loads * stage.load_seconds)
    small = gpu.project.settings.sample.model_copy(update={"quantize": "nf4"})
    quantised = gpu.stage("denoise", gpu.project.settings.model_copy(update={"sample": small}))
    assert quantised.load_seconds == pytest.approx(stage.load_seconds, rel=0.2), "the file is the same"
    assert gpu.stage("train").loads == 1

    vae = gpu.project.models.path("vae")
    vae.parent.mkdir(parents=True, exist_ok=True)
    with vae.open("wb") as file:
        file.truncate(3 * 10**9)
    try:
        found = gpu.stage("encode latents").loading
        assert found is not None
        assert (found.least, found.most) == pytest.approx((1.5 + 3, 3 / 0.7 + 12))
    finally:
        vae.unlink()
