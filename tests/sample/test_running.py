"""Previews of running samples: what they show, and that the sample does not notice them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from hv15.data.encode import read_video_metadata
from hv15.models import Condition
from hv15.models.latents import scale
from hv15.records.outputs import running_preview
from hv15.sample.contact_sheet import read_sample
from hv15.sample.denoise import denoise
from hv15.sample.latent_colors import LatentColors
from hv15.sample.running import RunningPreviews, small_video
from hv15.sample.schedule import sigmas
from tests.sample.conftest import StandIn

COLORS = LatentColors(torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0.5, 0.5]]), torch.tensor([0.0, 0.1, -0.1]))
NOTHING = Condition(torch.zeros(1, 3, 8), [3], torch.zeros(1, 0, 6), [0], None)


class Recorder:
    """Wants to see every second step, and keeps what it was shown."""

    def __init__(self):
        self.seen = {}

    def is_due(self, step):
        return step % 2 == 0

    def show(self, step, clean):
        self.seen[step] = clean.clone()
        clean.zero_()  # what it is shown is its own


def run(velocity, watcher=None, steps=4):
    noise = torch.randn(1, 4, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    return denoise(StandIn(velocity), noise, NOTHING, None, sigmas(steps, 5.0), 1.0, watcher=watcher)


def test_the_prediction_of_a_model_that_knows_the_video():
    """On the straight path from noise to a video, x = (1-s)*video + s*noise, the velocity is noise - video."""
    noise = torch.randn(1, 4, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    video = torch.randn(1, 4, 3, 4, 5)
    recorder = Recorder()
    run(lambda x, t, c: noise - video, recorder)
    assert list(recorder.seen) == [2, 4]
    for clean in recorder.seen.values():
        assert_close(clean, video, atol=1e-5, rtol=0)


def test_the_sample_does_not_notice():
    def velocity(x, t, c):
        return torch.sin(x[:, :4]) * t.view(-1, 1, 1, 1, 1) / 1000

    assert torch.equal(run(velocity), run(velocity, Recorder()))
    state = torch.get_rng_state()
    run(velocity, Recorder())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_preview_shows_the_colors(spec, tmp_path):
    """Red, then green, then blue, each a latent frame; values beyond 1 are clamped."""
    latents = torch.full((1, 4, 3, 2, 3), -1.0)
    for frame, channels in enumerate(([0], [1], [2, 3])):
        latents[:, channels, frame] = 1.2
    with RunningPreviews(COLORS, 2).of(spec, tmp_path) as watcher:
        assert [step for step in range(7) if watcher.is_due(step)] == [0, 2]  # of 3 steps, the last is the sample
        watcher.show(2, scale(latents))
        file = running_preview(tmp_path, spec.name)
        frames = read_sample(file)
        metadata = read_video_metadata(file)
    assert frames.shape == (3, 2 * 106, 3 * 106, 3)
    assert frames.mean((1, 2)).argmax(1).tolist() == [0, 1, 2]
    assert metadata["hv15.sample_step"] == "2"
    assert metadata["hv15.sample"] == spec.to_text()
    assert list(tmp_path.iterdir()) == []  # the finished sample takes its place


def test_neighbors_blend_and_sizes_are_even():
    values = small_video(COLORS, torch.randn(1, 4, 2, 45, 80))
    assert values.shape == (2, 180, 320, 3)
    assert values.dtype == np.uint8


def test_a_preview_that_cannot_be_written_is_told_once(spec, tmp_path, caplog):
    folder = tmp_path / "samples"
    folder.write_text("a file is in the way")
    with RunningPreviews(COLORS, 1).of(replace(spec, steps=9), folder) as watcher:
        for step in range(1, 4):
            if watcher.is_due(step):
                watcher.show(step, torch.zeros(1, 4, 3, 2, 3))
    assert caplog.text.count("no more previews") == 1


def test_without_previews_nothing_is_watched(spec, tmp_path):
    with RunningPreviews(None).of(spec, tmp_path) as watcher:
        assert watcher is None


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_sample_that_fails_leaves_no_preview(spec, tmp_path, error):
    def fails():
        with RunningPreviews(COLORS, 1).of(spec, tmp_path) as watcher:
            watcher.show(1, torch.zeros(1, 4, 3, 2, 3))
            assert running_preview(tmp_path, spec.name).exists()
            raise error

    with pytest.raises(error):
        fails()
    assert list(tmp_path.iterdir()) == []
