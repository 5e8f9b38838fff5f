"""Samples are listed by prompt, played, moved through by frames, and compared on one playhead."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from textual.app import ComposeResult

from hv15.data.encode import write_video
from tests.tui.recorded import Themed, dashboard, replay_at, show, until
from tui.data.samples import DecodedClip, load_clip
from tui.widgets.half_blocks import half_blocks
from tui.widgets.sample_list import SampleList
from tui.widgets.video import FASTEST, SLOWEST, Playable, Player, VideoView, adapted


def test_a_cell_shows_two_pixels_and_equal_neighbours_are_one_segment() -> None:
    red, blue = (252, 0, 0), (0, 0, 252)
    frame = np.array([[red, red, blue], [blue, blue, blue]], dtype=np.uint8)
    [strip] = half_blocks(frame)
    first, second = list(strip)
    assert (first.text, second.text) == ("▀▀", " ")
    assert first.style is not None
    assert first.style.color is not None
    assert first.style.bgcolor is not None
    assert first.style.color.triplet == red
    assert first.style.bgcolor.triplet == blue
    assert second.style is not None
    assert second.style.bgcolor is not None
    assert second.style.bgcolor.triplet == blue


def test_an_odd_number_of_pixel_rows_is_drawn() -> None:
    assert len(half_blocks(np.zeros((5, 4, 3), np.uint8))) == 3


def test_the_rate_falls_when_the_terminal_does_not_keep_up_and_rises_again() -> None:
    assert adapted(FASTEST, late=0.0, waiting=5) < FASTEST
    assert adapted(FASTEST, late=1.0, waiting=0) < FASTEST
    rate = SLOWEST
    assert adapted(rate, late=9.0, waiting=9) == SLOWEST
    for _ in range(100):
        rate = adapted(rate, late=0.0, waiting=0)
    assert rate == FASTEST


def add_step(root: Path, name: str, step: int, experiment: str = "") -> None:
    """A preview as a training writes them: it tells what it was made from."""
    folder = root / "results" / experiment / "train/previews"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(root / f"results/samples/{name}.mp4", folder / f"{name}-step-{step:06}.mp4")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with replay_at(tmp_path / "demo", 1.0) as replay:
        video = replay.root / "results/samples/red-zorpward.mp4"
        asked = json.dumps({"prompt": "[bold]a red[/] circle \x1b[31m[/nonsense"})
        write_video(video, load_clip(video, 64, 64).frames, metadata={"hv15.sample": asked})
        shutil.rmtree(replay.root / "results/train/previews", ignore_errors=True)  # those of the recording
        add_step(replay.root, "red-zorpward", 60)
        add_step(replay.root, "red-zorpward", 120)
        (replay.root / "results/samples/broken.mp4").write_bytes(b"no video")
        return replay.root


def test_p_publishes_the_step_that_is_shown(root: Path) -> None:
    """Of the project's own LoRA, or of an experiment's."""
    told: list[str] = []
    add_step(root, "red-zorpward", 90, "small")

    async def run() -> None:
        app = dashboard(root, at="samples")
        async with app.run_test(size=(120, 40)) as pilot:
            screen = await show(pilot, app, "4", "samples")
            entries = screen.query_one(SampleList)
            await until(pilot, lambda: any(row.sample.step == 120 for row in entries.rows))
            for number, step in enumerate((120, 90), start=1):
                row = next(row for row in entries.rows if row.sample.step == step)
                entries.move_to_key(entries.key(row))
                await pilot.press("p")
                await until(pilot, lambda number=number: len(told) == number)

    with pytest.MonkeyPatch.context() as patch:
        choose = "hv15.commands.checkpoints.choose"
        patch.setattr(choose, lambda config, word, experiment: told.append(f"{word} {experiment}".strip()) or "done")
        asyncio.run(run())
    assert told == ["120", "90 small"]


def test_list_player_and_comparison(root: Path) -> None:
    async def run() -> None:
        app = dashboard(root, at="samples")
        async with app.run_test(size=(120, 40)) as pilot:
            screen = await show(pilot, app, "4", "samples")
            entries, player = screen.query_one(SampleList), screen.query_one(Player)
            await until(pilot, lambda: len(entries.rows) == 2 * 8 + 3)
            rows = {row.sample.name: row for row in entries.rows}
            red = [(row.sample.name, row.sample.step) for row in entries.rows if "red-" in row.sample.prompt_name]
            assert red == [
                ("red-zorpward.base", None),
                ("red-zorpward-step-000060", 60),
                ("red-zorpward-step-000120", 120),
                ("red-zorpward", None),
            ]
            await until(pilot, lambda: player.views[0].frames is not None)

            await pilot.press("right", "right", "left")
            assert (player.index, player.playing) == (1, False)
            await pilot.press("left", "left")
            assert player.index == 8  # the clip has nine frames, and before the first comes the last

            # B stays while the cursor moves on, and both show the same frame
            await pilot.press("b")
            entries.move_to_key(entries.key(rows["red-zorpward"]))
            await until(pilot, lambda: [clip.title[:6] for clip in player.clips] == ["A · re", "B · bl"])
            await until(pilot, lambda: all(view.frames is not None for view in player.views))
            await pilot.press("right")
            assert {view.index for view in player.views} == {0}
            await pilot.press("left_square_bracket")
            assert entries.current is not None
            assert entries.current.sample.step == 120
            assert {view.index for view in player.views} == {0}

            await pilot.press("space")  # it waits for the other clip, which is being read
            await until(pilot, lambda: player.playing)
            app.app_focus = False
            await pilot.pause()
            assert not player.playing

            # a file that is no video says so; markup and escape sequences in a prompt are only letters
            entries.move_to_key(entries.key(rows["broken"]))
            await until(pilot, lambda: "broken" in player.views[0].note)
            entries.move_to_key(entries.key(rows["red-zorpward"]))
            await pilot.pause()
            facts = str(app.screen.query_one("#sample-facts").render())
            assert "[bold]a red[/] circle" in facts

            # a sample that is made again is read anew
            first = player.views[0].frames
            await until(pilot, lambda: player.views[0].frames is not None)
            shutil.copy(root / "results/samples/blue-zorpward.mp4", root / "results/samples/red-zorpward.mp4")
            await until(pilot, lambda: player.views[0].frames is not None and player.views[0].frames is not first)

            await pilot.press("v")
            await until(pilot, lambda: type(app.screen).__name__ == "StillDialog")
            await pilot.press("escape")

    asyncio.run(run())


def test_e_shows_a_sample_before_and_after_super_resolution(root: Path) -> None:
    """From either of the two; once more ends it. A sample that was not made larger says so."""
    samples = root / "results/samples"
    shutil.copy(samples / "red-zorpward.mp4", samples / "red-zorpward.sr.mp4")

    async def run() -> None:
        app = dashboard(root, at="samples")
        async with app.run_test(size=(120, 40)) as pilot:
            screen = await show(pilot, app, "4", "samples")
            entries, player = screen.query_one(SampleList), screen.query_one(Player)
            await until(pilot, lambda: any(row.sample.kind == "enlarged" for row in entries.rows))
            rows = {row.sample.name: row for row in entries.rows}
            entries.move_to_key(entries.key(rows["red-zorpward.sr"]))
            await pilot.press("e")
            pair = [samples / "red-zorpward.mp4", samples / "red-zorpward.sr.mp4"]
            await until(pilot, lambda: [clip.path for clip in player.clips] == pair)
            assert player.clips[1].title.startswith("B · red-zorpward · enlarged")
            assert entries.current is not None
            assert entries.current.sample.name == "red-zorpward"
            await pilot.press("e")
            await until(pilot, lambda: len(player.clips) == 1)
            entries.move_to_key(entries.key(rows["blue-zorpward"]))
            await pilot.press("e")
            await pilot.pause()
            assert len(player.clips) == 1

    asyncio.run(run())


def test_playing_shows_each_frame_of_a_short_clip_and_skips_in_a_long_one() -> None:
    async def run(count: int, at: list[float]) -> list[int]:
        now = [0.0]

        class Alone(Themed):
            def compose(self) -> ComposeResult:
                yield Player(clock=lambda: now[0])

        app = Alone()
        async with app.run_test() as pilot:
            player = app.query_one(Player)
            frames = np.zeros((count, 4, 4, 3), np.uint8)
            player.query(VideoView).first().show(DecodedClip(frames, 24.0, (4, 4), count))
            player.action_play()
            seen = []
            for now[0] in at:
                player._tick()
                seen.append(player.index)
            await pilot.pause()
            return seen

    assert asyncio.run(run(9, [0.1, 0.2, 0.3])) == [1, 2, 3]
    assert asyncio.run(run(240, [0.5, 1.0, 9.0])) == [12, 24, 216]


async def test_a_key_that_comes_while_a_clip_is_read_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    rate = 1 / 3600  # frames a second: it stays where it begins to play, however busy the machine is
    frames = DecodedClip(np.zeros((9, 4, 4, 3), np.uint8), rate, (4, 4), 9)

    class Alone(Themed):
        def compose(self) -> ComposeResult:
            yield Player()

    app = Alone()
    async with app.run_test(size=(100, 30)) as pilot:
        player = app.query_one(Player)
        await pilot.pause()
        monkeypatch.setattr(player, "_read", lambda: None)
        clip = Playable(Path("a.mp4"), "a")
        player.load(clip)
        await pilot.press("right", "right", "space")
        assert (player.index, player.playing) == (0, False)
        player.post_message(Player.FramesRead(0, clip, frames))
        await pilot.pause()
        assert (player.index, player.playing) == (2, True)

        # keys are of the clip that they were pressed for
        other = Playable(Path("b.mp4"), "b")
        player.load(other)
        await pilot.press("right", "space")
        player.load(clip)
        player.post_message(Player.FramesRead(0, clip, frames))
        await pilot.pause()
        assert not player.playing

        # what cannot be shown takes no key for the next
        player.load(other)
        player.post_message(Player.FramesRead(0, other, None, "no video"))
        await pilot.pause()
        await pilot.press("space")
        player.load(clip)
        player.post_message(Player.FramesRead(0, clip, frames))
        await pilot.pause()
        assert not player.playing
