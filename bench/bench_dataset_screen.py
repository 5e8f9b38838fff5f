"""How long a key on the Dataset screen is kept waiting, by the number of clips.

    python bench/bench_dataset_screen.py 1000 50000

The clips are real videos of 25 frames, each with other content. `open` and `keys` are the longest stretches of
computing of the UI thread, in CPU time, until all files are looked into and for each key afterwards; `wall` is the same
by the clock, so other programs are in it.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from bench_dashboard import Stalls
from growth_project import CLIPS, small_video, write_clips

from tests.tui.recorded import dashboard, one_gpu
from tui.widgets.clip_list import ClipList

CONFIG = f"""\
models: {{source: demo}}
datasets:
  - {{video_directory: {CLIPS}, resolution: [64, 64], target_frames: [9, 25], frame_extraction: chunk}}
"""
KEYS = ("down", "pagedown", "end", "up", "home", "slash", "7", "backspace", "escape")


async def measure(root: Path, count: int) -> None:
    app = dashboard(root, one_gpu())
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause(2)
        stalls = Stalls()
        watcher = asyncio.create_task(stalls.watch())
        began = time.perf_counter()
        await pilot.press("5")
        while not (len((clips := app.screen.query_one(ClipList)).rows) == count and clips.rows[-1].probed):
            await pilot.pause(0.5)
        seconds = time.perf_counter() - began
        await pilot.pause(1)
        wall, opened = stalls.take()
        print(f"{count:7} clips: all known after {seconds:.0f} s; open {opened:.0f} ms (wall {wall:.0f})", flush=True)
        for key in KEYS:
            await pilot.press(key)
            await pilot.pause(1)
            wall, computed = stalls.take()
            print(f"    {key:<10} {computed:6.0f} ms (wall {wall:.0f})", flush=True)
        watcher.cancel()


def main() -> None:
    for count in [int(argument) for argument in sys.argv[1:]] or [1000]:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            write_clips(root, range(count), small_video())
            (root / "config.yaml").write_text(CONFIG)
            asyncio.run(measure(root, count))


if __name__ == "__main__":
    main()
