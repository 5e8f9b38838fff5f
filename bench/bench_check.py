"""How long `hv15 check` takes, by the number of clips: the first time, again, and when every file was touched.

    python bench/bench_check.py 1000 50000

The clips are real videos of 25 frames and 64x64 pixels, each with other content. What is measured is the command as a
person calls it, with its start.
"""

from __future__ import annotations

import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

REPEATS = 3

CONFIG = """\
models: {source: demo}
datasets:
  - {video_directory: clips, resolution: [64, 64], target_frames: [9, 25], frame_extraction: chunk}
"""


def main() -> None:
    for count in [int(argument) for argument in sys.argv[1:]] or [1000]:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            write(root, count)
            first = seconds(root)
            again = [seconds(root) for _ in range(REPEATS)]
            touched = []
            for _ in range(REPEATS):
                for clip in (root / "clips").glob("*.mp4"):
                    os.utime(clip)
                touched.append(seconds(root))
        print(
            f"{count:7} clips: first {first:.2f} s, again {statistics.median(again):.2f} s, "
            f"all touched {statistics.median(touched):.2f} s (medians of {REPEATS})",
            flush=True,
        )


def write(root: Path, count: int) -> None:
    """A project with `count` videos: one video, with a box at its end that players pass over and that differs."""
    clips = root / "clips"
    clips.mkdir()
    (root / "config.yaml").write_text(CONFIG)
    video = root / "video.mp4"
    with av.open(str(video), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(24))
        stream.width = stream.height = 64
        for number in range(25):
            picture = np.full((64, 64, 3), 10 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())
    content = video.read_bytes()
    for number in range(count):
        (clips / f"{number:06}.mp4").write_bytes(content + struct.pack(">I4sQ", 16, b"free", number))
        (clips / f"{number:06}.txt").write_text(f"a clip that shows the number {number}")


def seconds(root: Path) -> float:
    """One call of `hv15 check`; a check that finds a mistake is no measurement."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "hv15.cli", "check", root], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
