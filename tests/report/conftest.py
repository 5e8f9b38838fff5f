"""A finished project whose LoRA, samples and records look like those of a real training, made without a model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hv15.data.encode import write_image, write_video
from hv15.project import Project
from hv15.project.metadata import product_metadata
from hv15.records.metrics import (
    QUANTILE_COUNT,
    SIGMA_BINS,
    MetricsRecord,
    StartRecord,
    StepRecord,
    ValidationRecord,
    metrics_line,
)
from hv15.records.summary import TrainingSummary
from hv15.train.told_config import told_config
from tests.workflow.finished import finish
from tests.workflow.quick import QuickProject
from tests.workflow.stub_hv15 import write_safetensors

HOSTILE = """<b>bold</b> & "quoted" <script>alert('x')</script>"""
STEPS = 40


def step(number: int) -> StepRecord:
    """A step of a training that learns."""
    loss = 0.2 + 1 / (3 + number) + 0.05 * np.sin(7 * number)
    bins = tuple(None if (number + each) % 3 else loss + 0.02 * each for each in range(SIGMA_BINS))
    return StepRecord(
        step=number,
        time=1e9 + number,
        epoch=number / 10,
        loss=loss,
        loss_by_sigma=bins,
        lr=1e-4 * min(1, number / 10),
        grad_norm=1 / number,
        samples_per_s=1.0,
        data_wait_s=0.01,
        step_s=2.0,
        tokens_per_s=1.0,
        memory=11e9,
        memory_peak=13e9,
    )


def validation(number: int) -> ValidationRecord:
    losses = tuple(0.3 + 1 / (5 + number) + 0.03 * level for level in range(QUANTILE_COUNT))
    return ValidationRecord(
        step=number,
        loss=sum(losses) / len(losses),
        trained_loss=0.9 * sum(losses) / len(losses),
        loss_by_quantile=losses,
        trained_loss_by_quantile=tuple(0.9 * loss for loss in losses),
        sigmas=tuple((level + 1) / 10 for level in range(QUANTILE_COUNT)),
    )


def write_records(project: Project) -> None:
    """The metrics and the summary of a training."""
    paths = project.paths
    records: list[MetricsRecord] = [StartRecord(step=0, total_steps=STEPS, spec="0")]
    records += [step(number) for number in range(1, STEPS + 1)]
    records += [validation(number) for number in (0, 20, STEPS)]
    paths.training.mkdir(parents=True, exist_ok=True)
    paths.metrics.write_text("".join(json.dumps(metrics_line(record)) + "\n" for record in records))
    summary = TrainingSummary(
        steps=STEPS,
        skipped_steps=0,
        epochs=4.0,
        loss_first=0.5,
        loss_last=0.25,
        train_seconds=80.0,
        data_wait_seconds=0.4,
        memory_peak=13e9,
        finished=1.8e9,
        device="NVIDIA H200",
        versions={"hv15": "0.1.0", "torch": "2.9.0"},
    )
    summary.write(paths.summary)


def write_lora(project: Project) -> None:
    """The published LoRA, with the metadata that a training gives."""
    spec = project.published_spec
    metadata = {
        "ss_network_dim": "4",
        "ss_network_alpha": "4.0",
        "hv15.made_from": json.dumps(spec),
        "hv15.config": json.dumps(told_config(project.settings.dump(), spec)),
        "hv15.steps": str(STEPS),
        "hv15.epochs": "4.0",
        "hv15.clips": "5",
        "hv15.dataset_size": "5",
        "hv15.sizes": "[[3, 4, 4], [3, 4, 6]]",
        "hv15.dit": str(spec["dit"]),
        "hv15.task": project.settings.task,
        "hv15.versions": '{"hv15": "0.1.0", "torch": "2.9.0"}',
    }
    for file in (project.paths.trained, project.paths.lora):
        write_safetensors(file, metadata)


def moving(colour: tuple[int, int, int], frames: int = 9, size: int = 64) -> np.ndarray:
    """A square that moves to the right: uint8 [F, H, W, 3]."""
    video = np.full((frames, size, size, 3), 30, np.uint8)
    for number in range(frames):
        left = 4 + number * (size - 24) // frames
        video[number, 24:40, left : left + 16] = colour
    return video


def draw_samples(project: Project) -> None:
    """Samples that show something, which tell the same as those of the stand-ins."""
    for number, file in enumerate(sorted(project.paths.samples.glob("*.mp4"))):
        colour = (220, 60, 50) if ".base" in file.name else (70, 160, 60 + 20 * number)
        write_video(file, moving(colour), metadata=product_metadata(file))
    if (sheet := project.paths.contact_sheet).exists():
        write_image(sheet, moving((90, 90, 200))[0], {**product_metadata(sheet), "Description": "it moves <now>"})


def look_real(project: Project) -> Project:
    """Give the files of the stand-ins the content of real ones."""
    write_records(project)
    write_lora(project)
    draw_samples(project)
    return project


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> QuickProject:
    """A project with two prompts, one of them hostile, each without and with the LoRA."""
    project = QuickProject.make(tmp_path_factory.mktemp("shown") / "project")
    (project.clips / "cat.txt").write_text(f"a cat, {HOSTILE}")
    prompts = [{"name": "one", "prompt": "a red circle"}, {"name": "two", "prompt": HOSTILE}]
    project.set(
        sample={"with_base": True, "prompts": prompts},
        convert={"formats": ["comfyui"], "title": HOSTILE, "description": HOSTILE, "author": "somebody"},
        train={"learning_rate": 0.0002, "validation": {"fraction": 0.2, "every_n_steps": 20}},
    )
    finish(project)
    look_real(Project(project.root / "config.yaml"))
    return project


@pytest.fixture
def page_of(shown: QuickProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of it for one test alone, whose curves are not drawn: that takes longest."""
    monkeypatch.setattr("hv15.report.page.chart_figures", lambda metrics: [])
    return Project(shown.copied(tmp_path / "project", everything=True).root / "config.yaml")
