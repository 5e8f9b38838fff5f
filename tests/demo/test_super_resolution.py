"""What the demo's super resolution does to clips of the toy world: sharper edges, the same motion and colours.

Upsampler, noise of the condition, its switch-off, the order of the channels, scale, image condition and decoding stand
between the small latents and the large clip; a fault in any of them shows. `bench/bench_enlarging.py` has the same with
more clips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from demo_base.enlarging import Enlargement, ToyEnlarger, similarity
from demo_base.trials import ToySampler, spread, unseen_concepts
from hv15 import cli
from hv15.demo.layout import BASE
from hv15.demo.measure import psnr
from hv15.demo.world import render, scenes
from hv15.models import load_dit
from hv15.models.latents import low_resolution_channels, scale
from hv15.sample.contact_sheet import read_sample
from hv15.sample.files import read_latents
from hv15.sample.super_resolution import LowResolution
from tests.workflow.project import REPOSITORY

SCENES = spread(scenes(), 12)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small only wait for their other threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def enlarger() -> ToyEnlarger:
    return ToyEnlarger(ToySampler({role: BASE / path.name for role, path in ToySampler.of(Path()).paths.items()}))


@pytest.fixture(scope="module")
def small(enlarger: ToyEnlarger) -> Tensor:
    """Scaled latents of samples of the demo's base."""
    base = load_dit(enlarger.sampler.paths["dit"], dtype=torch.float32)
    return enlarger.sampler.latents(base, SCENES)


def holds(clips: Sequence[Enlargement]) -> dict[str, bool]:
    """What super resolution has to do."""
    return {
        "sharper": bool(np.mean([each.sharpening for each in clips]) > 1.15),
        "same place": bool(np.median([each.strays for each in clips]) < 2.0),
        "same colour": bool(np.mean([each.colour_change for each in clips]) < 4.0),
        "same motion": bool(np.mean([each.moves_right for each in clips]) > 0.85),
    }


def test_a_drawn_clip_comes_nearer_to_the_large_one_than_by_interpolation(enlarger: ToyEnlarger) -> None:
    drawn = enlarger.enlarge_drawn(SCENES, look=7)
    assert all(holds(drawn).values()), holds(drawn)
    assert np.mean([each.gain for each in drawn]) > 0.2
    pairs = [(each, each.truth) for each in drawn if each.truth is not None]
    first = [psnr(each.enlarged[0], truth[0]) - psnr(each.interpolated[0], truth[0]) for each, truth in pairs]
    assert np.mean(first) > 1.0
    likeness = [similarity(each.enlarged, truth) - similarity(each.interpolated, truth) for each, truth in pairs]
    assert np.mean(likeness) > 0


def test_a_motion_that_it_has_never_seen_stays(enlarger: ToyEnlarger) -> None:
    """What a LoRA teaches the base goes through a model that does not know it."""
    drawn = enlarger.enlarge_drawn(spread(unseen_concepts(), 12), look=8)
    assert all(holds(drawn).values()), holds(drawn)


def test_samples_of_the_base_become_sharper(enlarger: ToyEnlarger, small: Tensor) -> None:
    shown = enlarger.enlarge(small, SCENES)
    assert all(holds(shown).values()), holds(shown)


def test_the_large_first_image_is_shown(enlarger: ToyEnlarger) -> None:
    images = [render(scene, 7, size=96)[0] for scene in SCENES]
    with_images, without = (enlarger.enlarge_drawn(SCENES, look=7, images=given) for given in (images, None))
    levels = [
        [psnr(each.enlarged[0], image) for each, image in zip(shown, images, strict=True)]
        for shown in (with_images, without)
    ]
    assert np.mean(levels[0]) > np.mean(levels[1]) + 0.5
    assert all(holds(with_images).values()), holds(with_images)


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("--set", "sample.quantize=fp8"), ("--set", "sample.blocks_to_swap=2")])
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
    assert encoded.strays < 4
    assert encoded.moves_right


# -- faults that have to show -----------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("fault", [show_nothing, never_switch_off, before_the_image, without_noise])
def test_a_fault_shows(
    enlarger: ToyEnlarger, fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    assert not all(holds(enlarger.enlarge_drawn(SCENES, look=7)).values())
