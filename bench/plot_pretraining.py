"""Draw the loss curves of the demo's base: `python bench/plot_pretraining.py demo/pretraining docs/demo-base.png`.

Each point is a mean over 25 steps.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from hv15.records.json_values import parse_object

WIDTH, HEIGHT, MARGIN, SPAN = 420, 260, 46, 25
PANELS = {
    ("encoder",): ("encoder: error of the scaled latents", "loss"),
    ("decoder",): ("decoder: dB, cut-outs of 48 x 48, noisy latents", "psnr"),
    ("transformer", "again"): ("transformer: loss; two cycles", "loss"),
}


def means(values: Sequence[float]) -> list[float]:
    """Return the means of spans of the values."""
    spans = (values[start : start + SPAN] for start in range(0, len(values), SPAN))
    return [math.fsum(span) / len(span) for span in spans]


def panel(draw: ImageDraw.ImageDraw, left: int, title: str, values: Sequence[float], steps: int) -> None:
    """Draw one curve with its scales."""
    low, high = min(values), max(values)
    right, top, bottom = left + WIDTH - 16, MARGIN, HEIGHT - MARGIN

    def place(number: int, value: float) -> tuple[float, float]:
        x = left + MARGIN + (right - left - MARGIN) * number / max(1, len(values) - 1)
        return x, bottom - (bottom - top) * (value - low) / max(high - low, 1e-9)

    draw.rectangle((left + MARGIN, top, right, bottom), outline="#bbbbbb")
    draw.line([place(number, value) for number, value in enumerate(values)], fill="#1f6fb4", width=2)
    draw.text((left + MARGIN, top - 18), title, fill="black")
    for value in (low, (low + high) / 2, high):
        draw.text((left + 4, place(0, value)[1] - 6), f"{value:.3g}", fill="#444444")
    draw.text((left + MARGIN, bottom + 6), "0", fill="#444444")
    draw.text((right - 60, bottom + 6), f"{steps} steps", fill="#444444")


def main(work: Path, target: Path) -> None:
    """Draw all panels side by side."""
    image = Image.new("RGB", (WIDTH * len(PANELS), HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    for number, (names, (title, field)) in enumerate(PANELS.items()):
        lines = [line for name in names for line in (work / name / "metrics.jsonl").read_bytes().splitlines()]
        found = [value for line in lines if isinstance(value := parse_object(line).get(field), float)]
        panel(draw, WIDTH * number, title, means(found), len(found))
    image.quantize(32).save(target, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
