"""Masks and regularisation through the commands: checked, encoded, trained, reported."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from hv15.data.probe import probe
from hv15.records.metrics import read_steps
from tests.commands.workbench import Workbench


def mask_of(clip: Path, scale: int = 1) -> Path:
    """Draw a mask of a clip's shape: black above, white below."""
    info = probe(clip, "video")
    pixels = np.zeros((info.height * scale, info.width * scale), np.uint8)
    pixels[len(pixels) // 2 :] = 255
    path = clip.with_name(f"{clip.stem}.mask.png")
    Image.fromarray(pixels).save(path)
    return path


def test_masks_and_regularisation(project: Workbench) -> None:
    first, second, third = sorted(project.clips.glob("*.mp4"))
    others = project.root / "others"
    others.mkdir()
    for path in (third, third.with_suffix(".txt")):
        path.rename(others / path.name)
    mask_of(first)
    mask_of(second, scale=2)
    own = project.project.settings.dump()["datasets"][0]  # type: ignore[index,call-overload]  # JSON
    reg = {**own, "video_directory": "others", "is_reg": True}
    project.set(datasets=[{**own, "masked_prior_preservation_weight": 0.5}, reg])
    checked = project.hv15("check").out
    assert "2 masks" in checked
    assert re.search(r"regularisation +1 file: others/", checked)
    project.encode()
    masks = list((project.root / "cache/store/masks").glob("*/??/*.safetensors"))
    items = project.project.training_items()
    assert {path.stem for path in masks} == {item.mask for item in items if item.mask}
    assert [item.loss.targets_prior for item in items if not item.mask] == [True]
    weights = load_file(masks[0])["mask"].float()
    assert set(weights[:, 0].unique().tolist()) == {0.0}
    assert set(weights[:, -1].unique().tolist()) == {1.0}
    project.train()
    assert "2 masks" in project.does("report").out
    steps = list(read_steps(project.paths.metrics))
    assert steps
    assert any(step.prior_loss is not None for step in steps)
    before = project.items("latents")
    mask_of(first, scale=3)
    Image.new("L", (64, 64)).save(second.with_name(f"{second.stem}.mask.png"))
    project.encode()
    assert project.items("latents") == before
    assert len(project.items("masks")) > len(masks)
    assert f"1 file: the mask is black in 1 clip, from which nothing is learnt there: clips/{second.stem}.mask.png" in (
        project.does("report").out
    )


@pytest.mark.slow
def test_a_mask_that_does_not_fit(project: Workbench) -> None:
    first = min(project.clips.glob("*.mp4"))
    Image.new("L", (64, 16)).save(first.with_name(f"{first.stem}.mask.png"))
    checked = project.hv15("check").out
    assert "expected the same aspect ratio" in checked
    project.does("encode", "latents")
    project.refuses("encode", "masks", naming=(f"{first.stem}.mask.png", "aspect ratio"))
