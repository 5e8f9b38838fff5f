"""What reading encoded items costs, and how much of it is the check of their sha256.

    python bench/bench_store.py [--rounds 20] [--folder /tmp]

The items are of true sizes: clips of 720p and 480p in float16, the first with an image's features, and a long caption.
They are read from the page cache, so the disk adds to it; a training reads them in threads, ahead of its steps.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from hv15.cache.store import Store, content_sha256
from hv15.records.paths import EncodedKind

ITEMS: dict[str, tuple[EncodedKind, dict[str, tuple[int, ...]]]] = {
    "121 frames of 1280x720, with features": ("latents", {"latents": (32, 31, 45, 80), "vision": (729, 1152)}),
    "61 frames of 848x480": ("latents", {"latents": (32, 16, 30, 53)}),
    "caption of 300 tokens": ("text", {"text": (300, 3584), "glyphs": (40, 1472)}),
}


def seconds(read: Callable[[], object], rounds: int) -> float:
    """The shortest of some readings."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        read()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    print(f"{'item':40} {'MB':>6} {'read ms':>8} {'without ms':>11} {'ms/MB':>6}")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for name, (kind, shapes) in ITEMS.items():
            store, key = Store(Path(folder), kind, "bench"), "ab" * 32
            store.write(key, {part: torch.randn(shape).half() for part, shape in shapes.items()}, {})
            size = store.path(key).stat().st_size / 1e6
            read = partial(store.read, key)
            whole = seconds(read, options.rounds)
            with patch("hv15.cache.store.content_sha256", return_value=content_sha256(read())):
                without = seconds(read, options.rounds)
            check = 1e3 * (whole - without) / size
            print(f"{name:40} {size:6.1f} {1e3 * whole:8.2f} {1e3 * without:11.2f} {check:6.2f}")


if __name__ == "__main__":
    main()
