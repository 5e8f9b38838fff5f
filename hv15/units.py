"""Sizes as people read them."""

from __future__ import annotations

KIB = 2**10
GIB = 2**30


def size(count: float) -> str:
    """Bytes as 512 B, 1.5 GiB, 71 GiB."""
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < KIB or unit == "TiB":
            break
        value /= KIB
    return f"{value:.0f} {unit}" if unit == "B" or abs(value) >= 10 else f"{value:.1f} {unit}"
