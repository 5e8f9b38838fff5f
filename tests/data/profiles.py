"""Small ICC profiles, and what the colours that they describe are in sRGB: by the standard's formulas, without lcms."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

D50 = np.array([0.9642, 1.0, 0.8249])
P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
ADOBE = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
"""Columns: XYZ of red, green and blue, adapted to D50."""

ADOBE_GAMMA = 563 / 256

INKS = {  # CMYK in percent to CIE Lab relative to the paper, about as the solids of a printer
    (0, 0, 0, 0): (100, 0, 0),
    (100, 0, 0, 0): (55, -37, -50),
    (0, 100, 0, 0): (48, 74, -3),
    (0, 0, 100, 0): (89, -5, 93),
    (100, 100, 0, 0): (24, 22, -46),
    (100, 0, 100, 0): (50, -68, 33),
    (0, 100, 100, 0): (47, 68, 48),
    (100, 100, 100, 0): (23, 0, 0),
}


def rgb_profile(matrix: NDArray[np.float64], curve: NDArray[np.float64]) -> bytes:
    """A display profile: XYZ = matrix @ curve(rgb)."""
    tone = b"curv" + struct.pack(">II", 0, len(curve)) + _u16(curve * 65535)
    tags = {name + b"TRC": tone for name in (b"r", b"g", b"b")}
    tags |= {name + b"XYZ": _xyz(matrix[:, i]) for i, name in enumerate((b"r", b"g", b"b"))}
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags)


def grey_profile(curve: NDArray[np.float64]) -> bytes:
    return _profile(
        b"mntr", b"GRAY", b"XYZ ", {b"kTRC": b"curv" + struct.pack(">II", 0, len(curve)) + _u16(curve * 65535)}
    )


def cmyk_profile() -> bytes:
    """A printer's profile: a table of the 16 solids, in which black ink gives L = 0 over any other ink."""
    nodes = bytearray()
    for number in range(16):
        inks = tuple(100 * (number >> (3 - i) & 1) for i in range(4))
        lab = INKS.get(inks, (0, 0, 0))
        nodes += bytes([round(lab[0] * 2.55), lab[1] + 128, lab[2] + 128])
    ramp = bytes(range(256))
    table = (
        b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + struct.pack(">9i", *(65536 * v for v in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    )
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table + ramp * 4 + bytes(nodes) + ramp * 3})


def srgb_curve(value: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def srgb_of_xyz(xyz: NDArray[np.float64]) -> NDArray[np.float64]:
    """XYZ (D50) to sRGB levels 0..255, cut off at the gamut's border."""
    light = np.clip(xyz @ np.linalg.inv(SRGB).T, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def srgb_of_lab(lab: tuple[int, int, int]) -> NDArray[np.float64]:
    f = (lab[0] + 16) / 116 + np.array([lab[1] / 500, 0, -lab[2] / 200])
    return srgb_of_xyz(D50 * np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)))


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {b"desc": _text(b"desc"), b"cprt": b"text" + bytes(4) + b"none\0", b"wtpt": _xyz(D50), **tags}
    table, data = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    header = bytes(8) + b"\x02\x10\0\0" + kind + space + connection + bytes(12) + b"acsp" + bytes(28)
    header += _xyz(D50)[8:] + bytes(48)
    body = header[4:] + table + data
    return struct.pack(">I", len(body) + 4) + body


def _text(text: bytes) -> bytes:
    return b"desc" + bytes(4) + struct.pack(">I", len(text) + 1) + text + b"\0" + bytes(78)


def _xyz(xyz: NDArray[np.float64]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in xyz))


def _u16(values: NDArray[np.float64]) -> bytes:
    return np.round(values).astype(">u2").tobytes()
