"""PNG files of any size and with any chunks."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np


def png(
    path: Path, width: int, height: int, *chunks: tuple[bytes, bytes], after: tuple[bytes, bytes] | None = None
) -> Path:
    """Write an RGB PNG whose columns go from black to white, however large, with further chunks before or after."""
    pack = zlib.compressobj(1)
    row = b"\0" + np.repeat((np.arange(width, dtype=np.uint64) * 256 // width).astype(np.uint8), 3).tobytes()
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")

        def write(name: bytes, data: bytes) -> None:
            file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))

        write(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        for name, data in chunks:
            write(name, data)
        for _ in range(height):
            if data := pack.compress(row):
                write(b"IDAT", data)
        write(b"IDAT", pack.flush())
        if after:
            write(*after)
        write(b"IEND", b"")
    return path


def claims(path: Path, width: int, height: int) -> Path:
    """Let a PNG's header claim another size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = bytearray(path.read_bytes())
    data[16:33] = header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    path.write_bytes(data)
    return path
