"""Names of files and samples that hold what a terminal would obey."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

from tests.tui.recorded import dashboard, replay_at, show, until
from tests.tui.watched import text_of
from tui.widgets.clip_list import ClipList
from tui.widgets.log_list import LogList
from tui.widgets.sample_list import SampleList

NAME = "a\tb\nc\x1b[2J\x1b[5;5HHACKED\x1b[7m\x9b\u202e"
OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def test_no_name_reaches_the_terminal_as_it_is(tmp_path: Path) -> None:
    async def run() -> None:
        with replay_at(tmp_path / "demo", 1.1) as replay:
            replay.advance()
            clip = replay.root / "demo/clips/red_circle_on_black.mp4"
            shutil.copy(clip, clip.with_stem(NAME))
            clip.with_stem(NAME).with_suffix(".txt").write_text("a clip\n")
            shutil.copy(clip, replay.root / "results/samples" / f"{NAME}.mp4")
            (replay.root / "results/logs" / f"{NAME}.log").write_text("a line\n")
            app = dashboard(replay.root, at="samples")
            async with app.run_test(size=(120, 40)) as pilot:
                lists = {"4": ("samples", SampleList), "5": ("dataset", ClipList), "6": ("logs", LogList)}
                for key, (name, kind) in lists.items():
                    screen = await show(pilot, app, key, name)
                    rows = screen.query_one(kind)
                    await until(pilot, lambda rows=rows: any("HACKED" in str(rows.key(row)) for row in rows.rows))
                    rows.focus()
                    rows.cursor = next(place for place, row in enumerate(rows.rows) if "HACKED" in str(rows.key(row)))
                    await until(pilot, lambda: "HACKED" in text_of(app))
                    shown = text_of(app)
                    assert not OBEYED.search(shown.replace("\n", "")), name
                    await pilot.press("c")
                    await pilot.pause()
                    assert not OBEYED.search(text_of(app).replace("\n", "")), name

    asyncio.run(run())
