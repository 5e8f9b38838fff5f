"""Numbers as people read them."""

from __future__ import annotations

from hv15.progress import clock
from hv15.units import size

__all__ = ["bar", "duration", "number", "percent", "size", "sparkline"]


def duration(seconds: float | None) -> str:
    """Seconds as 0:07, 12:30, 3:04:05 or 2 d 3 h; "" when not known."""
    if seconds is None:
        return ""
    if seconds >= 86400:
        return f"{seconds // 86400:.0f} d {seconds % 86400 // 3600:.0f} h"
    return clock(max(0.0, seconds))


def number(value: float | None) -> str:
    """A measured number in four digits or so: 0.0123, 1.23e-05, 812; "" when not known."""
    if value is None or value != value:
        return "" if value is None else "NaN"
    if value == 0:
        return "0"
    return f"{value:.4g}"


def percent(share: float) -> str:
    """A share from 0 to 1 as 98 %."""
    return f"{share * 100:.0f} %"


def bar(share: float, width: int) -> str:
    """A line of `width` columns, thick up to a share from 0 to 1."""
    full = round(max(0.0, min(1.0, share)) * width)
    return "━" * full + "╌" * (width - full)


def sparkline(values: list[float], width: int, *, top: float | None = None) -> str:
    """The last `width` values as small bars; `top` is the value of a full one."""
    shown = values[-width:]
    if not shown:
        return ""
    highest = top or max(shown) or 1.0
    return "".join("▁▂▃▄▅▆▇█"[max(0, min(7, int(value / highest * 7.999)))] for value in shown)
