"""The measurement finds what rendered clips show, blurred ones too, and finds nothing where there is nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hv15.demo.measure import MeasuredClip, centres, measure, psnr, scene_of, sharpness
from hv15.demo.world import (
    COLOURS,
    CONCEPT,
    FRAMES,
    MOTIONS,
    RING,
    SHAPES,
    SIZE,
    Scene,
    appearance,
    draw,
    render,
    scenes,
)

SCENE = Scene("circle", "red", "right", "black")
EVERY = scenes((*SHAPES, RING), (*MOTIONS, CONCEPT))
SOME = EVERY[:: len(EVERY) // 48 + 1]  # the step shares no factor with the palettes: all values of all parts occur


def smeared(frames: np.ndarray, seed: int = 0, contrast: float = 0.85, noise: float = 8.0) -> np.ndarray:
    """What a weak decoder makes of a clip: soft edges, dull colours, noise."""
    pixels = frames.astype(float)
    for axis in (1, 2):
        pixels = sum(weight * np.roll(pixels, shift, axis) for shift, weight in zip((-1, 0, 1), (1, 2, 1), strict=True))
        pixels = pixels / 4
    grain = np.random.default_rng(seed).normal(0, noise, pixels.shape)
    return np.clip(127 + contrast * (pixels - 127) + grain, 0, 255).astype(np.uint8)


def test_the_sample_of_scenes_holds_everything() -> None:
    for part in ("shape", "colour", "motion", "background"):
        assert {getattr(scene, part) for scene in SOME[::2]} == {getattr(scene, part) for scene in EVERY}


@pytest.mark.parametrize(
    ("change", "step"),
    [(lambda clip: clip, 2), pytest.param(smeared, 1, marks=pytest.mark.slow)],
    ids=["rendered", "smeared"],
)
def test_tells_what_is_shown(change, step: int) -> None:
    for seed, scene in list(enumerate(SOME))[::step]:
        found = measure(change(render(scene, seed)))
        assert found.wrong(scene) == [], scene.caption
        assert found.moves_as(scene)
        assert found.jitter < 0.3


@pytest.mark.parametrize(
    ("part", "value"), [("shape", RING), ("colour", "purple"), ("motion", CONCEPT), ("background", "gray")]
)
def test_names_what_is_wrong(part: str, value: str) -> None:
    other = replace(SCENE, **{part: value})
    found = measure(render(SCENE, 3))
    assert found.wrong(other) == [f"{part} {getattr(SCENE, part)}, not {value}"]
    assert found.moves_as(other) == (part not in ("colour", "motion"))


@pytest.mark.slow
def test_noise_shows_nothing() -> None:
    for seed in range(5):
        random = np.random.default_rng(seed)
        clips = {
            "grain": random.integers(0, 256, (FRAMES, SIZE, SIZE, 3)),
            "blocks": np.kron(random.integers(0, 256, (FRAMES, 4, 4, 3)), np.ones((1, 16, 16, 1))),
            "waves": 127 + 90 * np.sin(np.add.outer(np.arange(FRAMES), np.linspace(0, 9, SIZE * SIZE * 3))),
        }
        for name, clip in clips.items():
            found = measure(clip.reshape(FRAMES, SIZE, SIZE, 3).astype(np.uint8))
            assert (found.shape, found.colour, found.motion) == (None, None, None), name
            assert found.jitter == np.inf


def test_an_empty_clip_shows_its_background() -> None:
    clip = np.full((FRAMES, SIZE, SIZE, 3), 118, np.uint8)
    found = measure(clip)
    assert (found.shape, found.colour, found.motion, found.background) == (None, None, None, "gray")


def moved(y: np.ndarray, x: np.ndarray, shape: str = "circle", colour: str = "red") -> MeasuredClip:
    """Measure a shape at these offsets from the middle, one a frame."""
    what = replace(appearance(SCENE, 0), speed=(0, 0), fore=COLOURS[colour])
    frames = [
        draw(shape, replace(what, y=SIZE / 2 + dy, x=SIZE / 2 + dx), frames=1) for dy, dx in zip(y, x, strict=True)
    ]
    return measure(np.concatenate(frames))


def test_only_straight_motion_in_a_known_direction_has_a_name() -> None:
    times, none = np.arange(FRAMES) - FRAMES // 2, np.zeros(FRAMES)
    assert moved(none, 2.0 * times).motion == "right"
    assert moved(-2.0 * times, none).motion == "up"
    assert moved(none, none).motion is None, "it stands"
    assert moved(1.5 * times, 1.5 * times).motion == CONCEPT
    assert moved(1.5 * times, 2.5 * times).motion == CONCEPT
    assert moved(1.5 * times, -1.5 * times).motion is None, "it moves aslant, but to the left"
    assert moved(0.5 * times, 2.0 * times).motion == "right"
    assert moved(none, 12.0 * (times % 2)).motion is None, "it jumps to and fro"
    assert moved(none, none).colour == "red"


def test_jitter_is_the_distance_from_an_even_path() -> None:
    times, none = np.arange(FRAMES) - FRAMES // 2, np.zeros(FRAMES)
    strays = np.array([1, -1, -1, 1, 0, 1, -1, -1, 1])  # no trend of its own
    assert moved(none, 2.0 * times).jitter < 0.05
    for size in (1.0, 3.0):
        found = moved(size * strays, 2.0 * times)
        assert found.motion == "right"
        assert found.jitter == pytest.approx(size * np.sqrt(8 / 9), rel=0.05)


def test_what_vanishes_is_not_there() -> None:
    clip = render(SCENE, 0)
    clip[3:] = clip[0, 0, 0]
    assert measure(clip).shape is None


def test_colours_outside_the_palette_have_no_name() -> None:
    for fore in ((230, 110, 20), (200, 190, 205)):  # orange, nearly gray
        what = replace(appearance(SCENE, 0), fore=fore, back=(90, 20, 60))
        found = measure(draw("circle", what))
        assert (found.colour, found.background, found.shape) == (None, None, "circle")


@pytest.mark.slow
def test_dark_and_glaring_colours_keep_their_names() -> None:
    for name, colour in COLOURS.items():
        level = np.array(colour, float)
        for fore in (0.6 * level, np.clip(level.mean() + 1.6 * (level - level.mean()), 0, 255)):
            found = measure(draw("circle", replace(appearance(SCENE, 0), fore=tuple(fore))))
            assert found.colour == name


def test_a_disc_with_a_small_hole_is_no_ring() -> None:
    clip = render(SCENE, 0)
    what = appearance(SCENE, 0)
    hole = draw("circle", replace(what, radius=what.radius / 4, fore=(1, 1, 1), back=(0, 0, 0)))
    clip[hole > 0] = clip[0, 0, 0, 0]
    assert measure(clip).shape == "circle"


def test_peak_signal_to_noise_ratio() -> None:
    black = np.zeros((4, 4, 3), np.uint8)
    assert psnr(black, black) == np.inf
    assert psnr(black, black + 255) == 0
    assert psnr(black, black + 1) == pytest.approx(48.13, abs=0.01)  # 20 log10(255)


@pytest.mark.parametrize("width", [2, 5])
def test_sharpness_is_that_of_the_edges(width: int) -> None:
    """A bar with even transitions of so many pixels; grain and its place do not matter."""
    columns = np.arange(80) + (0.5 if width % 2 else 0)
    coverage = np.clip((columns - 20) / width + 0.5, 0, 1) - np.clip((columns - 55) / width + 0.5, 0, 1)
    clip = np.tile((40 + 170 * coverage).round().astype(np.uint8)[:, None], (3, 48, 1, 3))
    assert sharpness(clip) == pytest.approx([1 / width] * 3, rel=0.03)
    assert sharpness(clip.transpose(0, 2, 1, 3)) == pytest.approx([1 / width] * 3, rel=0.03)
    assert (sharpness(np.full((2, 64, 64, 3), 90, np.uint8)) == 0).all()


def test_a_larger_clip_shows_the_same_at_other_places() -> None:
    for seed, scene in enumerate(SOME[:8]):
        small, large = render(scene, seed), render(scene, seed, size=96)
        assert large.shape == (FRAMES, 96, 96, 3)
        assert np.abs(centres(large) - 1.5 * centres(small)).max() < 0.2
        same = [clip.reshape(FRAMES, 32, size, 32, size, 3).mean((2, 4)) for clip, size in ((large, 3), (small, 2))]
        assert np.abs(same[0] - same[1]).mean() < 1.5
        assert sharpness(large).mean() == pytest.approx(sharpness(small).mean(), rel=0.1), "one pixel wide at any size"


def test_captions_are_read_back() -> None:
    for scene in EVERY:
        assert scene_of(scene.caption) == scene
    for text in ("", "a cat", "a red cat moving right on a black background", f"{SCENE.caption}, slowly"):
        assert scene_of(text) is None
