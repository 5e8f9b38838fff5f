"""Renders the clips of the default project, which show a motion that the demo's base model was not trained on.

Twelve short videos show the motion `world.CONCEPT`, each with its caption, and beside them is a picture as the first
frame of image-to-video samples. Twelve more show what the base knows, so that a LoRA does not unlearn it. Six show the
new motion with shapes in colours that the twelve do not have: the validation of the training.
"""

from __future__ import annotations

from pathlib import Path

from hv15.atomic import atomic_folder
from hv15.data.encode import write_image, write_video
from hv15.demo.world import BACKGROUNDS, COLOURS, CONCEPT, FPS, MOTIONS, SHAPES, Scene, render

CLIPS = 12
FIRST_FRAME = "first_frame.png"
"""The picture beside the clips: the first frame of the first clip."""


def concept_scenes() -> list[Scene]:
    """Return the scenes of the new motion.

    Each shape and each background occurs four times, each colour twice, and each pair of them at most twice.
    """
    return _scenes((CONCEPT,))


def unseen_scenes() -> list[Scene]:
    """Return scenes of the new motion, one of each colour, with the shape that it has in none of `concept_scenes`."""
    seen = {(scene.colour, scene.shape) for scene in concept_scenes()}
    pairs = [(colour, shape) for colour in COLOURS for shape in SHAPES if (colour, shape) not in seen]
    backgrounds = list(BACKGROUNDS)
    return [
        Scene(shape, colour, CONCEPT, backgrounds[number % len(backgrounds)])
        for number, (colour, shape) in enumerate(pairs)
    ]


def usual_scenes() -> list[Scene]:
    """Return the same number of scenes with motions that the base knows."""
    return _scenes(tuple(MOTIONS))


def _scenes(motions: tuple[str, ...]) -> list[Scene]:
    colours, backgrounds = list(COLOURS), list(BACKGROUNDS)
    return [
        Scene(
            SHAPES[(number + number // len(colours)) % len(SHAPES)],
            colours[number % len(colours)],
            motions[number % len(motions)],
            backgrounds[(number // 2 + number // len(colours)) % len(backgrounds)],
        )
        for number in range(CLIPS)
    ]


def render_demo_clips(folder: Path, seed: int = 0) -> None:
    """Write the videos of the new motion with their captions (.txt), and first_frame.png beside the folder.

    Args:
        folder: written atomically; replaced if it exists.
        seed: equal seeds give equal files.

    Raises:
        UserError: the folder cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_image(folder.parent / FIRST_FRAME, render(concept_scenes()[0], seed)[0])
    _write(folder, concept_scenes(), seed)


def render_usual_clips(folder: Path, seed: int = 0) -> None:
    """Write videos of what the base knows in the same way, so that a LoRA does not unlearn it.

    Raises:
        UserError: the folder cannot be written.
    """
    _write(folder, usual_scenes(), seed)


def render_unseen_clips(folder: Path, seed: int = 0) -> None:
    """Write videos of the new motion that are not trained on, in the same way.

    Raises:
        UserError: the folder cannot be written.
    """
    _write(folder, unseen_scenes(), seed)


def _write(folder: Path, scenes: list[Scene], seed: int) -> None:
    with atomic_folder(folder) as temporary:
        for scene in scenes:
            name = f"{scene.colour}_{scene.shape}_on_{scene.background}"
            write_video(temporary / f"{name}.mp4", render(scene, seed), FPS, {"title": scene.caption})
            (temporary / f"{name}.txt").write_text(scene.caption + "\n", encoding="utf-8")


DEMO_FOLDERS = {
    "demo/clips": render_demo_clips,
    "demo/usual": render_usual_clips,
    "demo/unseen": render_unseen_clips,
}
"""Folders of the default project, and the functions that fill them."""
