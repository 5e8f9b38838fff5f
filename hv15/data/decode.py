"""Reads clips as a stream: each frame is decoded once, and only those in clips are converted and resized."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np

from hv15.data.clips import Clip, timeline_of
from hv15.data.frames import Timeline, exact_fps
from hv15.data.images import read_image
from hv15.data.media import MediaError, MediaInfo, MediaKind, frame_files
from hv15.data.pixels import Fitter, Pixels
from hv15.data.probe import pixel_aspect, probe
from hv15.data.video import DAMAGED, damaged, decoded, open_video

if TYPE_CHECKING:
    from hv15.config.datasets import DatasetSettings

_JUMP_FRAMES = 16  # over fewer frames, decoding is faster than seeking

Stamped = tuple[int, av.VideoFrame]


def read_clips(
    path: Path,
    kind: MediaKind,
    clips: Sequence[Clip],
    dataset: DatasetSettings,
    info: MediaInfo | None = None,
    timeline: Timeline | None = None,
) -> Iterator[tuple[Clip, Pixels]]:
    """Yield each clip with its pixels, uint8 RGB [F, H, W, 3], in the order in which the clips end.

    Overlapping clips share their frames; only frames that unfinished clips need are in memory.

    Args:
        path: the file, or the folder of images.
        kind: of the file or folder.
        clips: from `plan_clips` with the same dataset settings.
        dataset: the settings, which have the frame rates.
        info: the result of `probe`, if the caller has it.
        timeline: the times of the file's frames, if they are not its own.

    Raises:
        MediaError: the file cannot be decoded, or ends before a clip does.
    """
    info = info or probe(path, kind)
    timeline, fps = timeline or timeline_of(info, dataset), exact_fps(dataset.target_fps)
    for fit in sorted({(clip.height, clip.width, clip.background) for clip in clips}):
        same = sorted((c for c in clips if (c.height, c.width, c.background) == fit), key=lambda c: c.start + c.frames)
        yield from _assemble(same, _pictures(info, timeline, same, fps, Fitter(fit[:2], fit[2])))


def _assemble(clips: list[Clip], pictures: Iterator[tuple[int, Pixels]]) -> Iterator[tuple[Clip, Pixels]]:
    """Collect pictures (frame number, pixels) into clips that are sorted by their end."""
    first_needed = list(accumulate((clip.start for clip in reversed(clips)), min))[::-1]
    held: dict[int, Pixels] = {}
    done = 0
    for number, pixels in pictures:
        held[number] = pixels
        while clips[done].start + clips[done].frames - 1 == number:
            clip = clips[done]
            yield clip, np.stack([held[i] for i in range(clip.start, clip.start + clip.frames)])
            done += 1
            if done == len(clips):
                return
        while held and (oldest := next(iter(held))) < first_needed[done]:
            del held[oldest]


def _pictures(
    info: MediaInfo, timeline: Timeline, clips: Sequence[Clip], fps: Fraction, fitter: Fitter
) -> Iterator[tuple[int, Pixels]]:
    """Yield (frame number, pixels) of each frame that the clips need, ascending; repeated frames are read once."""
    numbers = sorted({i for clip in clips for i in range(clip.start, clip.start + clip.frames)})
    with ExitStack() as stack:
        if info.kind == "video":
            read: Callable[[int], Pixels] = stack.enter_context(VideoReader(info, fitter)).pixels
        else:
            files = [info.path] if info.kind == "image" else frame_files(info.path)

            def read(index: int) -> Pixels:
                picture = read_image(files[index], background=fitter.background)
                return resized(files[index], lambda: fitter.image(picture))

        previous, pixels = -1, None
        for number in numbers:
            source = timeline.source_frame(number, fps)
            if pixels is None or source != previous:
                previous, pixels = source, read(source)
            yield number, pixels


class VideoReader:
    """Decodes chosen frames of a video, in ascending order.

    It seeks over long stretches that are not needed. It decodes from the beginning instead if seeking in the file turns
    out to be unreliable, or if frames are interlaced: a deinterlaced frame depends on its neighbours, which must be the
    same whichever clips are read.
    """

    def __init__(self, info: MediaInfo, fitter: Fitter) -> None:
        self.info = info
        self.fitter = fitter
        self._stack = ExitStack()
        self._may_jump = True
        self._deinterlaces = False
        self._open()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def pixels(self, index: int) -> Pixels:
        """Return source frame `index`, resized and cropped, uint8 [H, W, 3].

        Raises:
            MediaError: the frame is damaged, or the video ends before it.
        """
        try:
            frame = self._frame(index)
            if frame.interlaced_frame and not self._deinterlaces:
                self._may_jump, self._deinterlaces = False, True
                self._open()
                frame = self._frame(index)
        except (av.FFmpegError, ValueError, MemoryError) as error:
            raise damaged(self.info.path, error, f" at frame {index}") from error
        if frame.is_corrupt:
            raise MediaError(self.info.path, f"frame {index} is damaged", hint=DAMAGED)
        return resized(self.info.path, lambda: self.fitter.frame(frame))

    def _open(self) -> None:
        self._stack.close()
        self._container, self._stream = self._stack.enter_context(open_video(self.info.path))
        self._stream.thread_type = "AUTO"
        self.fitter.aspect = pixel_aspect(self._stream)
        self._restart()

    def _restart(self) -> None:
        self._frames = self._decode()
        self._held: Stamped | None = None  # the last frame that is not later than the wanted one
        self._next: Stamped | None = None  # the first frame that is later

    def _decode(self) -> Iterator[Stamped]:
        """Yield decoded frames with their timestamps, or with their numbers if the container has no timestamps."""
        frames = decoded(self._container, self._stream, deinterlace=self._deinterlaces)
        for number, frame in enumerate(frames):
            if self.info.pts is None:
                yield number, frame
            elif frame.pts is not None:
                yield frame.pts, frame

    def _frame(self, index: int) -> av.VideoFrame:
        """Return the decoded frame that is shown at the time of source frame `index`."""
        wanted = index if self.info.pts is None else self.info.pts[index]
        jumped = self._jump(index)
        while self._held is None or self._held[0] != wanted:
            self._next = self._next or next(self._frames, None)
            if self._next is None:
                raise self._ended(index)
            if self._next[0] > wanted:
                if self._held is not None or not jumped:
                    break  # frame `index` is a hidden reference, so the frame before it stays on the screen
                self._may_jump = jumped = False  # the seek went too far
                self._open()
                continue
            self._held, self._next = self._next, None
        shown = self._held or self._next
        assert shown is not None
        return shown[1]

    def _jump(self, index: int) -> bool:
        """Seek to the last keyframe before source frame `index` if that saves decoding; return whether it did."""
        pts, keyframes = self.info.pts, self.info.keyframes
        if not self._may_jump or pts is None or not keyframes:
            return False
        current = self._next or self._held
        position = 0 if current is None else bisect_left(pts, current[0])
        before = bisect_right(keyframes, pts[index])
        if not before or bisect_left(pts, keyframes[before - 1]) - position < _JUMP_FRAMES:
            return False
        keyframe = keyframes[before - 1]
        self._container.seek(keyframe, stream=self._stream)
        self._restart()
        return True

    def _ended(self, index: int) -> MediaError:
        count, last = len(self.info.timeline.times), -1 if self._held is None else self._held[0]
        shown = last + 1 if self.info.pts is None else bisect_right(self.info.pts, last) * (self._held is not None)
        return MediaError(
            self.info.path, f"ends after {shown} of {count} frames, but frame {index} is needed", hint=DAMAGED
        )


def resized(path: Path, fit: Callable[[], Pixels]) -> Pixels:
    """Return the result of `fit` for a picture of the file, uint8 [H, W, 3].

    Raises:
        MediaError: the resampler does not support the picture, although it was decoded correctly.
    """
    try:
        return fit()
    except MemoryError as error:
        raise damaged(path, error) from error
    except (av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaError(
            path, f"its pictures cannot be resized: {reason}", hint="convert it to a usual size and pixel format"
        ) from error
