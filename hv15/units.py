"""Sizes and times as people read them."""

from __future__ import annotations

KIB = 2**10
GIB = 2**30
TIMES = "\N{MULTIPLICATION SIGN}"


def size(count: float) -> str:
    """Bytes as 512 B, 1.5 GiB, 71 GiB."""
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < KIB or unit == "TiB":
            break
        value /= KIB
    return f"{value:.0f} {unit}" if unit == "B" or abs(value) >= 10 else f"{value:.1f} {unit}"


def duration(seconds: float) -> str:
    """Seconds as 40 ms, 8.5 s, 12 min, 3.5 h."""
    if seconds < 1:
        return f"{max(1, round(1000 * seconds))} ms"
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
