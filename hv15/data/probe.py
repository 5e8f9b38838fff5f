"""What a media file shows: size, orientation and the time of each frame, from one pass over its packets."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from hv15.data.frames import Timeline
from hv15.data.images import image_size
from hv15.data.media import Kind, MediaError, MediaInfo, frame_files
from hv15.data.pixels import has_alpha, upright_size

_NO_PTS = {"avi"}  # it stores the order of decoding; what FFmpeg makes of that is wrong for H.264 with B-frames
_EXACT_SEEKING = {"mov", "matroska"}  # elsewhere (MPEG-PS) times may differ after a jump
_PLAYLISTS = {"concat", "hls", "dash", "imf"}
_HDR = {16: "PQ", 18: "HLG"}  # AVColorTransferCharacteristic
DAMAGED = "play it to its end: it may be incomplete; copy it again, convert it, or remove it"


class _Packet(NamedTuple):
    stamp: int | None
    duration: int
    key: bool


log = logging.getLogger(__name__)


def probe(path: Path, kind: Kind) -> MediaInfo:
    """Return what a file shows. Of a video all packets are read and one frame is decoded.

    Raises:
        MediaError: it is missing, empty, damaged, cut short, or holds no pictures.
    """
    if kind == "video":
        return _probe_video(path)
    if kind == "image":
        height, width, alpha = image_size(path)
        return MediaInfo(path, kind, height, width, alpha, Timeline.constant(1, Fraction(1)))
    try:
        files = frame_files(path)
    except OSError as error:
        raise MediaError(f"{path}: cannot be read: {error.strerror}", hint="check the path") from error
    if not files:
        raise MediaError(f"{path}: no images in this folder", hint="a folder that is a clip holds one image a frame")
    sizes = [image_size(file) for file in files]
    for file, size in zip(files, sizes, strict=True):
        if size[:2] != sizes[0][:2]:
            raise MediaError(
                f"{file}: {size[1]}x{size[0]} pixels, but {files[0].name} has {sizes[0][1]}x{sizes[0][0]}",
                hint="the images of one clip have one size",
            )
    height, width, _ = sizes[0]
    alpha = any(size[2] for size in sizes)
    return MediaInfo(path, kind, height, width, alpha, Timeline.constant(len(files), Fraction(1)))


@contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file's video stream; cover art is none.

    Raises:
        MediaError: it is missing, empty, damaged, or holds no video.
    """
    if not path.is_file():
        found = "expected a video, found a folder" if path.is_dir() else "does not exist"
        raise MediaError(f"{path}: {found}", hint="check the path")
    if path.stat().st_size == 0:
        raise MediaError(f"{path}: empty file (0 bytes)", hint="copy it again or remove it")
    try:
        # An absolute name and local files only: no name or playlist can make FFmpeg open something else.
        container = av.open(os.path.abspath(path), options={"protocol_whitelist": "file"})  # noqa: PTH100
    except (av.FFmpegError, OSError, ValueError) as error:
        raise damaged(path, error) from error
    with container:
        if container.format.name.split(",")[0] in _PLAYLISTS:  # its key would not cover the files that it names
            raise MediaError(f"{path}: a playlist, expected a video", hint="put the videos themselves into the dataset")
        streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not streams:
            holds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            raise MediaError(
                f"{path}: no video in it (found {holds})", hint="remove it, or copy it again if it should hold one"
            )
        if streams[0].codec_context is None:
            raise MediaError(f"{path}: no decoder for its video", hint="convert it to H.264 or VP9")
        yield container, streams[0]


def damaged(path: Path, error: Exception, where: str = "") -> MediaError:
    """Describe an FFmpeg error about a file."""
    reason = "it ends too early" if isinstance(error, EOFError) else getattr(error, "strerror", None) or str(error)
    return MediaError(f"{path}: cannot be read as a video{where}: {reason}", hint=DAMAGED)


def _probe_video(path: Path) -> MediaInfo:
    with open_video(path) as (container, stream):
        stream.thread_type = "NONE"  # one frame is wanted: threads would only delay it
        format_ = container.format.name.split(",")[0]
        frame: av.VideoFrame | None = None
        packets: list[_Packet] = []
        try:
            for packet in container.demux(stream):
                if frame is None:
                    frame = next(iter(packet.decode()), None)
                if packet.size == 0 or packet.is_discard:
                    continue
                if packet.is_corrupt:
                    raise MediaError(f"{path}: cut short or damaged after {len(packets)} frames", hint=DAMAGED)
                stamp = packet.dts if format_ in _NO_PTS else packet.pts
                packets.append(_Packet(stamp, packet.duration or 0, packet.is_keyframe))
        except (av.FFmpegError, ValueError) as error:
            raise damaged(path, error, f" after {len(packets)} frames") from error
        if frame is None or not packets:
            raise MediaError(f"{path}: no frame can be decoded", hint=DAMAGED)
        timeline = _timeline(stream, packets)
        _check_complete(path, container, stream, len(packets), timeline.duration * timeline.tick)
        if frame.color_trc in _HDR:
            log.warning("%s: %s video, its colours are taken as they are stored", path, _HDR[frame.color_trc])
        height, width = upright_size(frame.height, frame.width, pixel_aspect(stream), round(frame.rotation / 90))
        alpha = has_alpha(frame.format)
        if format_ in _NO_PTS or any(packet.stamp is None for packet in packets):
            return MediaInfo(path, "video", height, width, alpha, timeline)
        keyframes = sorted({packet.stamp or 0 for packet in packets if packet.key}) if format_ in _EXACT_SEEKING else ()
        pts = sorted({packet.stamp or 0 for packet in packets})
        return MediaInfo(path, "video", height, width, alpha, timeline, tuple(pts), tuple(keyframes))


def _timeline(stream: VideoStream, packets: list[_Packet]) -> Timeline:
    """Return the timeline of a stream's packets, by their timestamps if all have one."""
    durations = {packet.stamp: packet.duration for packet in packets if packet.stamp is not None}
    if len(durations) and all(packet.stamp is not None for packet in packets) and stream.time_base:
        stamps = sorted(durations)
        rates = (stream.base_rate, stream.average_rate, stream.guessed_rate)
        return Timeline.stamped(stamps, stream.time_base, durations[stamps[-1]], rates)
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate or Fraction(24)
    return Timeline.constant(len(packets), rate)


def pixel_aspect(stream: VideoStream) -> float:
    """Return width / height of a stored pixel."""
    aspect = stream.sample_aspect_ratio
    return float(aspect) if aspect else 1.0


def _check_complete(path: Path, container: InputContainer, stream: VideoStream, counted: int, end: Fraction) -> None:
    """Compare the packets with what the header promised: a demuxer that meets the end of a cut file may say nothing.

    Edit lists may hide some frames, so only a real loss counts.
    """
    promised = stream.frames
    if promised and counted < promised - max(2, promised // 20) and not stream.start_time:
        raise MediaError(f"{path}: cut short: {counted} of {promised} frames", hint=DAMAGED)
    length = _promised_seconds(container, stream)
    if length and end < length - max(3 * end / counted, length / 20):
        raise MediaError(f"{path}: cut short: {float(end):.2f} of {float(length):.2f} seconds", hint=DAMAGED)


def _promised_seconds(container: InputContainer, stream: VideoStream) -> Fraction | None:
    """Return the video's length by the header: Matroska's tag of the stream, or the file's if there is nothing else."""
    tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if tag:
        hours, minutes, seconds = map(Fraction, tag.groups())
        return hours * 3600 + minutes * 60 + seconds
    if len(container.streams) == 1 and container.duration and not container.start_time:
        return Fraction(container.duration, av.time_base)
    return None
