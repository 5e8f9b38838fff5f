"""Reads the properties of a media file, such as size, orientation and frame times, in one pass over its packets."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from hv15.data.frames import Timeline
from hv15.data.images import image_size
from hv15.data.media import MediaError, MediaInfo, MediaKind, frame_files
from hv15.data.pixels import has_alpha, upright_size
from hv15.data.survey import counted
from hv15.data.video import DAMAGED, damaged, decoder_of, format_of, open_video

_NO_PTS = {"avi"}  # it stores the order of decoding, from which FFmpeg derives wrong times for H.264 with B-frames
_EXACT_SEEKING = {"mov", "matroska"}  # in other formats (MPEG-PS) times may differ after a seek
_HDR = {16: "PQ", 18: "HLG"}  # AVColorTransferCharacteristic
_LEADING = 32  # packets; an open group of pictures begins with fewer frames that refer to the group before


def probe(path: Path, kind: MediaKind) -> MediaInfo:
    """Return the properties of a file. For a video, all packets are read and the first frame is decoded.

    Raises:
        MediaError: the file is missing, empty, damaged, truncated or too large, or holds no pictures.
    """
    if kind == "video":
        return _probe_video(path)
    if kind == "image":
        size = image_size(path)
        timeline = Timeline.constant(1, Fraction(1))
        return MediaInfo(path, kind, size.height, size.width, size.alpha, timeline, notes=size.notes)
    try:
        files = frame_files(path)
    except OSError as error:
        raise MediaError(path, f"cannot be read: {error.strerror}", hint="check the path") from error
    if not files:
        raise MediaError(path, "no images in this folder", hint="put one image for each frame into it")
    sizes = [image_size(file) for file in files]
    first = sizes[0]
    for file, size in zip(files, sizes, strict=True):
        if (size.height, size.width) != (first.height, first.width):
            raise MediaError(
                file,
                f"{size.width}x{size.height} pixels, but {files[0].name} has {first.width}x{first.height}",
                hint="give all images of a clip the same size",
            )
    alpha = any(size.alpha for size in sizes)
    notes = tuple(dict.fromkeys(note for size in sizes for note in size.notes))
    timeline = Timeline.constant(len(files), Fraction(1))
    return MediaInfo(path, kind, first.height, first.width, alpha, timeline, notes=notes)


class _Stamp(NamedTuple):
    """The data that is kept about a packet."""

    time: int | None
    duration: int
    key: bool


@dataclass
class _Packets:
    """The result of one pass over a stream's packets."""

    shown: list[_Stamp] = field(default_factory=list)
    """The packets from the first key frame on, without those that an edit list hides."""
    before_key: int = 0
    """The number of packets before the first key frame that should be shown."""
    read: int = 0
    """The number of all packets."""
    first: av.VideoFrame | None = None
    """The first decoded frame."""


def _probe_video(path: Path) -> MediaInfo:
    with open_video(path) as (container, stream):
        stream.thread_type = "NONE"  # only one frame is decoded, which threads would delay
        counted = format_of(container) in _NO_PTS
        packets = _read_packets(path, container, stream, counted)
        first, shown = packets.first, packets.shown
        if first is None or not shown:
            raise _nothing_shown(path, packets)
        _check_complete(path, container, stream, packets)
        counted = counted or first.pts is None or any(packet.time is None for packet in shown)
        if counted:
            left_out = _leading(path)
            kept = shown[left_out:]
        else:
            kept = [packet for packet in shown if packet.time is not None and packet.time >= (first.pts or 0)]
            left_out = len(shown) - len(kept)
        timeline = _timeline(stream, kept)
        height, width = upright_size(first.height, first.width, pixel_aspect(stream), round(first.rotation / 90))
        exact = not counted and format_of(container) in _EXACT_SEEKING
        return MediaInfo(
            path,
            "video",
            height,
            width,
            alpha=has_alpha(first.format),
            timeline=timeline,
            pts=None if counted else _sorted_times(kept),
            keyframes=_sorted_times(packet for packet in kept if packet.key) if exact else (),
            notes=tuple(_notes(first, packets.before_key + left_out, timeline)),
        )


def _read_packets(path: Path, container: InputContainer, stream: VideoStream, counted: bool) -> _Packets:
    """Read all packets, and decode from the first key frame until there is a frame."""
    packets, decoder = _Packets(), decoder_of(stream)
    started = False
    try:
        for packet in container.demux(stream):
            is_end = packet.dts is None and packet.pts is None and packet.size == 0
            started = started or packet.is_keyframe
            if started and packets.first is None:
                packets.first = next(iter(decoder.decode(packet)), None)
            if is_end:
                continue
            packets.read += 1
            if not started:
                packets.before_key += not packet.is_discard
                continue
            if packet.is_corrupt:
                raise MediaError(path, f"cut short or damaged after {len(packets.shown)} frames", hint=DAMAGED)
            if packet.size and not packet.is_discard:
                packets.shown.append(_stamp(packet, counted))
    except (av.FFmpegError, ValueError) as error:
        raise damaged(path, error, f" after {len(packets.shown)} frames") from error
    return packets


def _stamp(packet: Packet[VideoStream], counted: bool) -> _Stamp:
    return _Stamp(packet.dts if counted else packet.pts, packet.duration or 0, packet.is_keyframe)


def _nothing_shown(path: Path, packets: _Packets) -> MediaError:
    if packets.before_key and not packets.shown:
        return MediaError(
            path,
            f"no key frame among its {packets.before_key} frames, so none can be decoded",
            hint="cut it from its original again, beginning earlier",
        )
    return MediaError(path, "no frame can be decoded", hint=DAMAGED)


def _leading(path: Path) -> int:
    """Count the frames at the beginning that cannot be decoded although they follow a key frame.

    They refer to frames before it, for example in a stream that was cut at an open group of pictures. This is for
    streams whose frames are counted; with timestamps, the time of the first decoded frame is enough.
    """
    with open_video(path) as (container, stream):
        decoder = decoder_of(stream)
        sent = received = 0
        try:
            for packet in container.demux(stream):
                if not packet.size or (not sent and not packet.is_keyframe):
                    continue
                sent, received = sent + 1, received + len(decoder.decode(packet))
                if sent == _LEADING:
                    break
            return max(0, sent - received - len(decoder.decode(None)))
        except (av.FFmpegError, ValueError):
            return 0  # the damage is reported when the frame is read


def _timeline(stream: VideoStream, packets: list[_Stamp]) -> Timeline:
    """Return the timeline of a stream's packets, from their timestamps if all have one."""
    durations = {packet.time: packet.duration for packet in packets if packet.time is not None}
    if len(durations) and all(packet.time is not None for packet in packets) and stream.time_base:
        stamps = sorted(durations)
        rates = (stream.base_rate, stream.average_rate, stream.guessed_rate)
        return Timeline.stamped(stamps, stream.time_base, durations[stamps[-1]], rates)
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate or Fraction(24)
    return Timeline.constant(len(packets), rate)


def _sorted_times(packets: Iterable[_Stamp]) -> tuple[int, ...]:
    return tuple(sorted({packet.time for packet in packets if packet.time is not None}))


def _notes(first: av.VideoFrame, left_out: int, timeline: Timeline) -> Iterable[str]:
    if first.color_trc in _HDR:
        yield f"{_HDR[first.color_trc]} video: its colours are not tone-mapped"
    if first.interlaced_frame:
        yield "interlaced video: it is deinterlaced (bwdif)"
    if left_out:
        frames = counted(left_out, "frame")
        seconds = float(left_out / timeline.fps)
        yield f"begins between key frames: its first {frames} ({seconds:.1f} s) cannot be decoded and are left out"


def pixel_aspect(stream: VideoStream) -> float:
    """Return width / height of a stored pixel."""
    aspect = stream.sample_aspect_ratio
    return float(aspect) if aspect else 1.0


def _check_complete(path: Path, container: InputContainer, stream: VideoStream, packets: _Packets) -> None:
    """Compare the packets with the header, because a demuxer may not report the end of a truncated file.

    An MP4's index lists the packets that its edit list leaves to be read, including hidden ones; its header counts all
    packets. An AVI also counts frames that its recorder dropped, for which there are no packets.
    """
    read, promised = packets.read, stream.frames - max(2, stream.frames // 20)
    if format_of(container) == "mov":
        promised = len(stream.index_entries)
    elif format_of(container) in _NO_PTS:
        read = max((packet.time + 1 for packet in packets.shown if packet.time is not None), default=0)
    if read < promised:
        raise MediaError(path, f"cut short: {read} of {stream.frames or promised} frames", hint=DAMAGED)
    length, end = _promised_seconds(container, stream), _end(stream, packets.shown)
    if length and end and end < length - max(3 * end / packets.read, length / 20):
        raise MediaError(path, f"cut short: {float(end):.2f} of {float(length):.2f} seconds", hint=DAMAGED)


def _end(stream: VideoStream, packets: list[_Stamp]) -> Fraction | None:
    """Return when the last frame disappears, in seconds of the container's clock; None without timestamps."""
    ends = [packet.time + packet.duration for packet in packets if packet.time is not None]
    return max(ends) * stream.time_base if ends and stream.time_base else None


def _promised_seconds(container: InputContainer, stream: VideoStream) -> Fraction | None:
    """Return the video's end according to the header: Matroska's tag of the stream, or that of a file without sound."""
    tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if tag:
        hours, minutes, seconds = map(Fraction, tag.groups())
        return hours * 3600 + minutes * 60 + seconds
    if len(container.streams) == 1 and container.duration and not container.start_time:
        return Fraction(container.duration, av.time_base)
    return None
