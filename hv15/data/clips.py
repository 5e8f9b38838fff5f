"""Clips: the windows of a media file that are trained, and what their pixels depend on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hv15.data.buckets import choose_bucket
from hv15.data.frames import Timeline, exact_fps, windows
from hv15.data.media import MediaError, MediaInfo
from hv15.errors import UserError
from hv15.grid import encodable_frames
from hv15.records.json_values import JsonObject

if TYPE_CHECKING:
    from hv15.config.datasets import DatasetSettings


MOST_STILL = 60
"""Most seconds that one frame may be shown; clips from a longer gap in a recording would be frozen."""


@dataclass(frozen=True, slots=True, order=True)
class Clip:
    """A window of a media file at a bucket's size. Together with the file's bytes it determines the pixels."""

    start: int
    """The first frame, counted at the target rate."""
    frames: int
    """Number of frames, 4k+1."""
    height: int
    width: int
    """Height and width are in pixels, multiples of 16."""
    fps: str
    """The target rate, and the source rate if the user set it, which map times to frames. Empty for a still image."""
    background: str = ""
    """The colour behind transparent pixels; empty if the file has none."""

    def identity(self) -> JsonObject:
        """Return what identifies the clip in addition to the file's content: the input of its key."""
        return {
            "start": self.start,
            "frames": self.frames,
            "size": [self.height, self.width],
            "fps": self.fps,
            "background": self.background,
        }


def timeline_of(info: MediaInfo, dataset: DatasetSettings) -> Timeline:
    """Return when the source frames are shown, according to their timestamps or to the user's `source_fps`.

    A folder of images has no timestamps: its images are shown at the target rate.
    """
    if info.kind == "image":
        return info.timeline
    if dataset.source_fps is not None:
        return Timeline.constant(len(info.timeline.times), exact_fps(dataset.source_fps))
    if info.kind == "frames":
        return Timeline.constant(len(info.timeline.times), exact_fps(dataset.target_fps))
    return info.timeline


def plan_clips(info: MediaInfo, dataset: DatasetSettings) -> list[Clip]:
    """Return the clips that a dataset's settings cut from one file, without duplicates.

    Raises:
        MediaError: the file is too short for all `target_frames`, too small or too narrow, shows one frame for too
            long, or gives too many clips.
    """
    try:
        height, width = choose_bucket(
            info.height,
            info.width,
            dataset.resolution,
            enable_bucket=dataset.enable_bucket,
            no_upscale=dataset.bucket_no_upscale,
        )
    except UserError as error:
        raise MediaError(info.path, error.message, hint=error.hint) from error
    background = dataset.background if info.alpha else ""
    if info.kind == "image":
        return [Clip(0, 1, height, width, "", background)]
    timeline = timeline_of(info, dataset)
    _check_pace(info, timeline)
    count = timeline.count(exact_fps(dataset.target_fps))
    try:
        found = windows(
            count,
            dataset.frame_extraction,
            dataset.target_frames,
            stride=dataset.frame_stride,
            sample=dataset.frame_sample,
            max_frames=dataset.max_frames,
        )
    except UserError as error:
        raise MediaError(info.path, error.message, hint=error.hint) from error
    if not found:
        shortest = min(dataset.target_frames)
        raise MediaError(
            info.path,
            f"{count} frame{'s' if count > 1 else ''} at {_text(dataset.target_fps)} fps, "
            f"but target_frames asks for {shortest}",
            hint=f"use a longer clip, or add {encodable_frames(count)} to target_frames",
        )
    fps = _text(dataset.target_fps)
    if dataset.source_fps is not None:
        fps += f" from {_text(dataset.source_fps)}"
    return [Clip(start, frames, height, width, fps, background) for start, frames in found]


def _check_pace(info: MediaInfo, timeline: Timeline) -> None:
    if timeline.duration * timeline.tick.numerator <= MOST_STILL * timeline.tick.denominator:
        return
    index, seconds = timeline.longest_still()
    if seconds > MOST_STILL:
        length = f"{float(seconds):.0f} s" if seconds < 7200 else f"{float(seconds / 3600):.1f} hours"
        raise MediaError(
            info.path,
            f"frame {index} of {len(timeline.times)} lasts {length}; expected at most {MOST_STILL} s",
            hint="cut the file there, or set source_fps if its times are wrong",
        )


def missing_lengths(info: MediaInfo, dataset: DatasetSettings) -> list[int]:
    """Return the `target_frames` for which a video is too short, so that they give no clip."""
    if info.kind == "image" or dataset.frame_extraction == "full":
        return []
    count = timeline_of(info, dataset).count(exact_fps(dataset.target_fps))
    return [length for length in dataset.target_frames if length > count]


def _text(fps: float) -> str:
    return str(exact_fps(fps)) if exact_fps(fps).denominator == 1 else str(fps)
