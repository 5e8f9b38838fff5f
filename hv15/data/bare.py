"""Copies of videos and images that tell nothing about how they were made; what is seen in them stays the same."""

from __future__ import annotations

import struct
from pathlib import Path

import av

from hv15.atomic import atomic_path
from hv15.data.video import damaged, open_video


def write_bare_copy(source: Path, target: Path) -> None:
    """Copy an mp4 or a PNG, which may be animated, without its metadata. Nothing is encoded anew in an mp4.

    Raises:
        UserError: it is missing or damaged, or the copy cannot be written.
    """
    with atomic_path(target) as part:
        if source.suffix == ".mp4":
            _copy_video(source, part)
        else:
            _copy_picture(source, part)


def _copy_video(source: Path, target: Path) -> None:
    try:
        with (
            open_video(source) as (container, stream),
            av.open(str(target), "w", format="mp4", options={"movflags": "faststart", "fflags": "+bitexact"}) as copy,
        ):
            copied = copy.add_stream_from_template(stream)
            for packet in container.demux(stream):
                if packet.dts is not None:  # the last one is empty
                    packet.stream = copied
                    copy.mux(packet)
    except av.FFmpegError as error:
        raise damaged(source, error) from error


_DRAWN = (b"IHDR", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"fdAT", b"IDAT", b"IEND", b"sRGB", b"gAMA")
"""The chunks of a PNG that say what is seen."""
_SIGNATURE = 8


def _copy_picture(source: Path, target: Path) -> None:
    data = source.read_bytes()
    place, kept = _SIGNATURE, [data[:_SIGNATURE]]
    while place + 12 <= len(data):
        length, name = struct.unpack(">I4s", data[place : place + 8])
        end = place + 12 + length
        if name in _DRAWN:
            kept.append(data[place:end])
        place = end
    target.write_bytes(b"".join(kept))
