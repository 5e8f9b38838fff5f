"""Opens video files and decodes them in order, as players show them.

Notable choices:
- Decoding begins at the first key frame. A recording, or a piece cut from a stream, may begin before it; the frames
  before the key frame cannot be decoded, or decode to garbage.
- WebM stores the transparency of VP8 and VP9 separately from the picture, and only libvpx's decoders read it.
- FFmpeg's bwdif rebuilds frames that are marked as interlaced from their earlier field and their neighbours, without
  changing the rate.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.codec.context import CodecContext
from av.container import InputContainer
from av.filter import Graph
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from hv15.data.media import MediaError

DAMAGED = "play it to its end, as it may be incomplete; then copy it again, convert it, or remove it"
MOST_PIXELS = 1 << 27
"""Most pixels in a frame, as in 16K video. A pixel takes up to 4 bytes, and a decoder holds up to 17 frames."""

_PLAYLISTS = {"concat", "hls", "dash", "imf"}
_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


@contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file's video stream, ignoring cover art.

    Raises:
        MediaError: the file is missing, empty, damaged or too large, or holds no video.
    """
    if not path.is_file():
        found = "expected a video, found a folder" if path.is_dir() else "does not exist"
        raise MediaError(path, f"{found}", hint="check the path")
    if path.stat().st_size == 0:
        raise MediaError(path, "empty file (0 bytes)", hint="copy it again or remove it")
    try:
        # An absolute name and local files only, so that no name or playlist makes FFmpeg open anything else.
        container = av.open(os.path.abspath(path), options={"protocol_whitelist": "file"})  # noqa: PTH100
    except (av.FFmpegError, OSError, ValueError) as error:
        raise damaged(path, error) from error
    with container:
        if format_of(container) in _PLAYLISTS:  # its key would not depend on the files that it names
            raise MediaError(path, "a playlist, expected a video", hint="put the videos themselves into the dataset")
        streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not streams:
            holds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            raise MediaError(
                path, f"expected a video, found {holds}", hint="remove it, or copy it again if it should hold a video"
            )
        context = streams[0].codec_context
        if context is None:
            raise MediaError(path, "no decoder for its video", hint="convert it to H.264 or VP9")
        if context.width * context.height > MOST_PIXELS:
            raise MediaError(
                path,
                f"frames of {context.width}x{context.height} pixels are too large: expected at most "
                f"{MOST_PIXELS >> 20} Mi pixels",
                hint="convert it to a smaller size",
            )
        yield container, streams[0]


def format_of(container: InputContainer) -> str:
    """Return FFmpeg's name of the container's format: "mov" for MP4, "matroska" for WebM."""
    return container.format.name.split(",")[0]


def damaged(path: Path, error: Exception, where: str = "") -> MediaError:
    """Return the error for a file on which FFmpeg failed."""
    if isinstance(error, MemoryError):
        return MediaError(
            path, f"needs more memory than is free{where}", hint="convert it to a smaller size, or free some memory"
        )
    reason = "it ends too early" if isinstance(error, EOFError) else getattr(error, "strerror", None) or str(error)
    return MediaError(path, f"cannot be read as a video{where}: {reason}", hint=DAMAGED)


def decoder_of(stream: VideoStream) -> VideoCodecContext:
    """Return the decoder for a stream: FFmpeg's, or libvpx's if the stream has separate transparency."""
    own = stream.codec_context
    tags = {key.lower(): value for key, value in stream.metadata.items()}
    if own.name not in _WITH_ALPHA or tags.get("alpha_mode") != "1":
        return own
    context = CodecContext.create(_WITH_ALPHA[own.name], "r")
    assert isinstance(context, VideoCodecContext)
    context.extradata = own.extradata
    return context


def decoded(container: InputContainer, stream: VideoStream, *, deinterlace: bool = False) -> Iterator[av.VideoFrame]:
    """Yield the frames from the next key frame on, with their timestamps in the stream's time base.

    Args:
        container, stream: from `open_video`, at the beginning or after a seek.
        deinterlace: rebuild frames that are marked as interlaced. They then depend on their neighbours, so after a seek
            they may differ from those of a full decode.

    Raises:
        av.FFmpegError: the stream is damaged.
    """
    context = decoder_of(stream)
    deinterlacer = _Deinterlacer(stream) if deinterlace else None
    waiting = True
    for packet in container.demux(stream):
        waiting = waiting and not packet.is_keyframe
        if waiting:
            continue
        for frame in context.decode(packet):
            yield from deinterlacer.frames(frame) if deinterlacer else (frame,)
    if deinterlacer:
        yield from deinterlacer.rest()


class _Deinterlacer:
    """Returns one frame for each frame that it gets, delayed by one frame."""

    def __init__(self, stream: VideoStream) -> None:
        self._time_base = stream.time_base
        self._graph: Graph | None = None
        self._shape: tuple[int, int, str] | None = None

    def frames(self, frame: av.VideoFrame) -> Iterator[av.VideoFrame]:
        shape = (frame.width, frame.height, frame.format.name)
        if self._graph is None or shape != self._shape:
            yield from self.rest()
            self._graph, self._shape = self._new_graph(frame), shape
        self._graph.vpush(frame)
        yield from self._pulled(self._graph)

    def rest(self) -> Iterator[av.VideoFrame]:
        if self._graph is not None:
            self._graph.vpush(None)
            yield from self._pulled(self._graph)

    def _new_graph(self, frame: av.VideoFrame) -> Graph:
        graph = Graph()
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=self._time_base
        )
        bwdif = graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
        graph.link_nodes(source, bwdif, graph.add("buffersink")).configure()
        return graph

    def _pulled(self, graph: Graph) -> Iterator[av.VideoFrame]:
        while True:
            try:
                frame = graph.vpull()
            except (av.BlockingIOError, av.EOFError):
                return
            if frame.pts is not None and frame.time_base and self._time_base:
                frame.pts = round(frame.pts * frame.time_base / self._time_base)
                frame.time_base = self._time_base
            yield frame
