"""What the demo's super resolution does to clips of the toy world: sharper edges, the same motion and colours.

Upsampler, noise of the condition, its switch-off, the order of the channels, scale, image condition and decoding stand
between the small latents and the large clip; a fault in any of them shows. All is measured against clips that are drawn
at both sizes, or against a bilinear enlargement. `bench/bench_enlarging.py` has the same with more clips.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from demo_base.basis import to_pixels
from demo_base.enlarging import EnlargedClip, ToyEnlarger
from demo_base.pairs import LARGE
from demo_base.trials import ToySampler, spread, unseen_concepts
from hv15 import cli
from hv15.demo.layout import BASE
from hv15.demo.measure import psnr
from hv15.demo.world import SIZE, render, scenes
from hv15.models import load_dit
from hv15.models.latents import low_resolution_channels, scale
from hv15.sample.contact_sheet import read_sample
from hv15.sample.files import read_latents
from hv15.sample.super_resolution import LowResolution, resized
from tests.workflow.project import REPOSITORY

SCENES = spread(scenes(), 12)
FEW = SCENES[:3]
"""Decoding a clip takes half a second."""


@pytest.fixture(scope="module")
def enlarger() -> ToyEnlarger:
    return ToyEnlarger(ToySampler({role: BASE / path.name for role, path in ToySampler.of(Path()).paths.items()}))


def holds(clips: Sequence[EnlargedClip]) -> dict[str, bool]:
    """What super resolution has to do; docs/demo.md has what is measured with more clips; limits have room."""
    return {
        "sharper": bool(np.mean([each.sharpening for each in clips]) > 1.08),
        "same place": bool(np.median([each.strays for each in clips]) < 3.5),
        "same colour": bool(np.mean([each.colour_change for each in clips]) < 5.0),
        "same motion": bool(np.mean([each.moves_right for each in clips]) > 0.85),
    }


@pytest.mark.slow
def test_a_clip_becomes_sharper_and_shows_the_same(enlarger: ToyEnlarger) -> None:
    drawn = enlarger.enlarge_drawn(FEW, look=7)
    assert all(holds(drawn).values()), holds(drawn)
    # it comes about as near to the clip that is drawn at the size as bilinear enlargement, which is not sharper
    assert np.mean([each.gain for each in drawn]) > -0.75
    plain = [replace(each, enlarged=each.interpolated) for each in drawn]
    assert not holds(plain)["sharper"]
    # 8 pixels aside is another place
    moved = [replace(each, enlarged=np.roll(each.enlarged, 8, axis=2)) for each in drawn]
    assert not holds(moved)["same place"]


# -- faults that have to show, in the latents, which are not decoded here ---------------------------------------------


Distance = Callable[[], float]


@pytest.fixture(scope="module")
def distance(enlarger: ToyEnlarger) -> Distance:
    """How far the large latents are from those of the drawn clips, relative to small ones that are only resized."""
    shown = SCENES[:6]
    with torch.no_grad():
        small, large = (
            scale(enlarger.sampler.vae.encode(to_pixels(np.stack([render(scene, 7, size=size) for scene in shown]))))
            for size in (SIZE, LARGE)
        )
    plain = (resized(small, *large.shape[3:]) - large).square().mean()
    return lambda: float((enlarger.latents(small, shown) - large).square().mean() / plain)


def show_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LowResolution, "channels", lambda self, level, like: low_resolution_channels(None, like))


def never_switch_off(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LowResolution, "channels", lambda self, level, like: low_resolution_channels(self.latents, like))


def before_the_image(patch: pytest.MonkeyPatch) -> None:
    """The channels of the first frame and those of the small clip change places."""
    from hv15.sample import denoise

    velocity = denoise._velocity

    def exchanged(dit: object, x: Tensor, *others: object) -> Tensor:
        latents, image, low = x.split([32, 33, 33], dim=1)
        found: Tensor = velocity(dit, torch.cat([latents, low, image], dim=1), *others)  # type: ignore[arg-type]
        return found

    patch.setattr(denoise, "_velocity", exchanged)


def without_noise(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("hv15.sample.super_resolution.with_noise", lambda latents, noise: latents)


def without_upsampler(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("demo_base.enlarging.upsampled", lambda latents, rows, columns, *_: resized(latents, rows, columns))


def another_shift(patch: pytest.MonkeyPatch) -> None:
    from hv15.sample.schedule import sigmas

    patch.setattr("demo_base.enlarging.sigmas", lambda steps, shift: sigmas(steps, 7.0))


MORE = (never_switch_off, without_noise, without_upsampler, another_shift)
FAULTS = [show_nothing, before_the_image, *(pytest.param(each, marks=pytest.mark.slow) for each in MORE)]


def test_it_comes_nearer_in_the_latents(distance: Distance) -> None:
    assert distance() < 0.55


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_shows(
    distance: Distance, fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    assert distance() > 0.65


# -- more clips -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_comes_as_near_to_drawn_clips_as_interpolation(enlarger: ToyEnlarger) -> None:
    drawn = enlarger.enlarge_drawn(SCENES, look=11)
    assert all(holds(drawn).values()), holds(drawn)
    assert np.mean([each.gain for each in drawn]) > -0.3


@pytest.mark.slow
def test_a_motion_that_it_has_never_seen_stays(enlarger: ToyEnlarger) -> None:
    """What a LoRA teaches the base goes through a model that does not know it."""
    drawn = enlarger.enlarge_drawn(spread(unseen_concepts(), 12), look=8)
    assert all(holds(drawn).values()), holds(drawn)


@pytest.mark.slow
def test_samples_of_the_base_become_sharper(enlarger: ToyEnlarger) -> None:
    base = load_dit(enlarger.sampler.paths["dit"], dtype=torch.float32)
    shown = enlarger.enlarge(enlarger.sampler.latents(base, SCENES), SCENES)
    assert all(holds(shown).values()), holds(shown)


@pytest.mark.slow
def test_the_large_first_image_is_shown(enlarger: ToyEnlarger) -> None:
    images = [render(scene, 7, size=LARGE)[0] for scene in SCENES]
    with_images, without = (enlarger.enlarge_drawn(SCENES, look=7, images=given) for given in (images, None))
    levels = [
        [psnr(each.enlarged[0], image) for each, image in zip(shown, images, strict=True)]
        for shown in (with_images, without)
    ]
    assert np.mean(levels[0]) > np.mean(levels[1]) + 0.5
    assert all(holds(with_images).values()), holds(with_images)


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("--set", "sample.quantize=fp8"), ("--set", "sample.blocks_to_swap=1")])
def test_the_commands_show_the_same(words: tuple[str, ...], enlarger: ToyEnlarger, tmp_path: Path) -> None:
    """`hv15 sample`, then `hv15 upsample`, in a project of the demo."""
    (tmp_path / "config.yaml").write_text((REPOSITORY / "config.yaml").read_text())
    scene, place = SCENES[5], ("--project", str(tmp_path))
    out = tmp_path / "out"
    sample = ["sample", scene.caption, "--seed", "1000", "-o", f"{out}/", "--set", "sample.output_type=both"]
    assert cli.main([*sample, *place]) == 0
    (latents,) = out.glob("*.latents.safetensors")
    assert cli.main(["upsample", str(latents), "-o", str(tmp_path / "large.frames"), *place, *words]) == 0
    large = read_sample(tmp_path / "large.frames")
    (expected,) = enlarger.enlarge(scale(read_latents(latents)[0])[None], [scene], seed=1000)
    assert np.abs(large.astype(int) - expected.enlarged).mean() < (3.0 if words else 0.01)
    found = replace(expected, enlarged=large)
    assert found.strays < 3
    assert found.sharpening > 1.1
    # a video, too: it is encoded first, and tells its prompt and seed
    (video,) = out.glob("*.mp4")
    assert cli.main(["upsample", str(video), *place, *words]) == 0
    encoded = replace(expected, enlarged=read_sample(video.with_suffix(".sr.mp4")))
    assert encoded.strays < 8
    assert encoded.moves_right
