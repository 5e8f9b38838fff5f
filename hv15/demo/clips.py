"""The clips of the default project, rendered on the spot: a shape that the demo's base has never been told of.

Twelve short videos of `world.CONCEPT` in every colour, direction and background, each with its caption, and beside
them a picture that image-to-video samples can begin from.
"""

from __future__ import annotations

from pathlib import Path

from hv15.atomic import atomic_folder
from hv15.data.encode import write_image, write_video
from hv15.demo.world import BACKGROUNDS, COLOURS, CONCEPT, FPS, MOTIONS, Scene, render

CLIPS = 12
FIRST_FRAME = "first_frame.png"
"""The picture beside the clips: the first frame of the first clip."""


def concept_scenes(count: int = CLIPS) -> list[Scene]:
    """Return scenes of the concept: twelve hold each colour twice, each direction three times and each background four
    times, and no two of these together more than once."""
    colours, motions, backgrounds = list(COLOURS), list(MOTIONS), list(BACKGROUNDS)
    return [
        Scene(
            CONCEPT,
            colours[number % len(colours)],
            motions[number % len(motions)],
            backgrounds[(number + number // len(motions)) % len(backgrounds)],
        )
        for number in range(count)
    ]


def render_demo_clips(folder: Path, seed: int = 0) -> None:
    """Write the demo's videos with their captions (.txt), and first_frame.png beside the folder.

    Args:
        folder: replaced if it exists; it appears complete or not at all.
        seed: equal seeds give equal files.

    Raises:
        UserError: the folder cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    scenes = concept_scenes()
    write_image(folder.parent / FIRST_FRAME, render(scenes[0], seed)[0])
    with atomic_folder(folder) as temporary:
        for scene in scenes:
            name = f"{scene.colour}_{scene.shape}_{scene.motion}_on_{scene.background}"
            write_video(temporary / f"{name}.mp4", render(scene, seed), FPS, {"title": scene.caption})
            (temporary / f"{name}.txt").write_text(scene.caption + "\n", encoding="utf-8")
