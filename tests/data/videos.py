"""Makes small videos of every kind that the tests need. Frame i of a video shows its number."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

HEIGHT, WIDTH = 48, 64


def numbered(number: int, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """A picture [H, W, 3] that shows its number as 8 grey bars, the lowest bit at the left."""
    bits = [(number >> bit) & 1 for bit in range(8)]
    row = np.repeat(np.array([40 + 170 * bit for bit in bits], np.uint8), -(-width // 8))[:width]
    return np.ascontiguousarray(np.broadcast_to(row[None, :, None], (height, width, 3)))


def number_of(picture: NDArray[np.uint8]) -> int:
    """Read the number back from a picture of any width."""
    width = picture.shape[1]
    centres = [round((bit + 0.5) * width / 8) for bit in range(8)]
    row = picture[picture.shape[0] // 2].mean(axis=1)
    return sum(int(row[centre] > 125) << bit for bit, centre in enumerate(centres))


def numbers_of(clip: NDArray[np.uint8]) -> list[int]:
    return [number_of(picture) for picture in clip]


def make_video(
    path: Path,
    frames: int | Sequence[NDArray[np.uint8]] = 24,
    rate: Fraction | int = 24,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    source_format: str = "rgb24",
    times: Sequence[Fraction] | None = None,
    time_base: Fraction | None = None,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    colours: tuple[int, int] | None = None,
    aspect: Fraction | None = None,
) -> Path:
    """Write a video of numbered frames, or of the given pictures.

    `times` are the frames' seconds (without: the constant `rate`), `colours` are (AVColorSpace, AVColorRange), `aspect`
    is that of a pixel.
    """
    pictures = [numbered(i, *size) for i in range(frames)] if isinstance(frames, int) else frames
    rate = Fraction(rate)
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        context = stream.codec_context
        context.height, context.width = pictures[0].shape[:2]
        context.pix_fmt, context.time_base = pix_fmt, time_base or 1 / rate
        if aspect:
            context.sample_aspect_ratio = aspect
        if colours:
            context.colorspace, context.color_range = colours
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, source_format)
            if colours:
                frame = frame.reformat(format=pix_fmt, dst_colorspace=colours[0], dst_color_range=colours[1])
            frame.time_base = context.time_base
            frame.pts = number if times is None else round(times[number] / context.time_base)
            if times is None and time_base:
                frame.pts = round(number / rate / time_base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def make_audio(path: Path, cover: bool = False) -> Path:
    """Write a sound file, with a cover picture if asked."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac" if path.suffix == ".m4a" else "mp3", rate=32000, layout="mono")
        picture = container.add_stream("png", rate=1) if cover else None
        if picture is not None:
            context = picture.codec_context
            context.width, context.height, context.pix_fmt = 16, 16, "rgb24"
            picture.disposition = Disposition.attached_pic
            container.mux(picture.encode(av.VideoFrame.from_ndarray(numbered(1, 16, 16), "rgb24")))
        samples = stream.codec_context.frame_size or 1152
        for number in range(16):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, samples), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 32000, number * samples
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turn(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Set the display matrix (a, b, c, d) of an mp4's only track: a stored point (x, y) is shown at (ax+cy, bx+dy)."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4
    assert data[start] == 0, "version 0 of the track header"
    a, b, c, d = (value << 16 for value in matrix)
    data[start + 40 : start + 76] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def copy_packets(source: Path, target: Path, skip: int = 0) -> Path:
    """Copy a video without re-encoding, but for its first `skip` packets: as a cut at any place of a stream."""
    with av.open(str(source)) as container, av.open(str(target), "w") as output:
        stream = container.streams.video[0]
        copy = output.add_stream_from_template(stream)
        for number, packet in enumerate(container.demux(stream)):
            if packet.size and number >= skip:
                packet.stream = copy
                output.mux(packet)
    return target


def show_only(path: Path, first: int, count: int, fps: int = 24) -> Path:
    """Let an mp4's edit list show `count` frames from frame `first` on, as a cut without re-encoding does."""
    data = bytearray(path.read_bytes())
    edit, movie, media = (_box(data, *names) for names in (_EDIT, ("moov", "mvhd"), _MEDIA))
    assert data[edit] == data[movie] == data[media] == 0, "version 0 of each box"
    (movie_clock,) = struct.unpack_from(">I", data, movie + 12)
    (media_clock,) = struct.unpack_from(">I", data, media + 12)
    (begin,) = struct.unpack_from(">i", data, edit + 12)
    struct.pack_into(">Ii", data, edit + 8, count * movie_clock // fps, begin + first * media_clock // fps)
    path.write_bytes(data)
    return path


_EDIT = ("moov", "trak", "edts", "elst")
_MEDIA = ("moov", "trak", "mdia", "mdhd")


def _box(data: bytes | bytearray, *names: str) -> int:
    """Return where the content of an mp4's box begins."""
    at = 0
    for name in names:
        while data[at + 4 : at + 8] != name.encode():
            at += struct.unpack_from(">I", data, at)[0]
        at += 8
    return at
