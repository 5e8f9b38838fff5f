"""Clips with captions are listed; a caption is edited in place, and what will run again is told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from textual.widgets import TextArea

from hv15.terminal_text import original, visible
from tests.tui.recorded import dashboard, replay_at, show, until
from tui.app import Dashboard
from tui.data.rerun import DueStage, Rerun
from tui.screens.dataset import bucket_text
from tui.widgets.clip_list import ClipList
from tui.widgets.video import Player

CLIPS = "demo/clips"


class Plan:
    """What a dry run would say."""

    def cancel(self) -> None:
        """Nothing to end."""

    def run(self) -> Rerun:
        return Rerun((DueStage("encode_texts.0", "encode captions", ("caption of cat.mp4 changed",)),))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with replay_at(tmp_path / "demo", 0.0) as replay:
        clips = replay.root / CLIPS
        (clips / "red_circle_on_black.txt").write_text("[red]not markup[/] \x1b[31m in a caption")
        (clips / "blue_circle_on_white.txt").unlink()
        (clips / "green_square_on_black.mp4").write_bytes(b"no video")
        return replay.root


def note(app: Dashboard) -> str:
    return str(app.screen.query_one("#caption-note").render())


def test_clips_captions_and_an_edit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        app = dashboard(root, at="dataset")
        monkeypatch.setattr(app.files, "dry_run", Plan)
        async with app.run_test(size=(120, 40)) as pilot:
            screen = await show(pilot, app, "5", "dataset")
            clips, area = screen.query_one(ClipList), screen.query_one("#caption", TextArea)
            await until(pilot, lambda: len(clips.rows) == 24 and all(item.probed for item in clips.rows))
            by_name = {item.path.stem: item for item in clips.rows if item.path.parent == root / CLIPS}
            assert "no caption" in by_name["blue_circle_on_white"].problem
            assert by_name["green_square_on_black"].problem
            assert by_name["red_circle_on_black"].clips == ("9 x 64 x 64",)
            assert "! 2" in str(clips.border_subtitle)

            # the words of a caption are only letters
            clips.move_to_key(clips.key(by_name["red_circle_on_black"]))
            await until(pilot, lambda: area.text.startswith("[red]not markup[/]"))
            assert "[red]not markup[/]" in clips.draw(by_name["red_circle_on_black"], 100).plain
            player = app.screen.query_one(Player)
            await until(pilot, lambda: player.views[0].frames is not None)

            # an edit is marked, survives moving away, and is written on ctrl+s only
            file = root / CLIPS / "red_circle_on_black.txt"
            before = file.read_text()
            await pilot.press("enter")
            area.load_text("a red circle, drawn by hand")
            await until(pilot, lambda: clips.edited)
            clips.focus()
            await pilot.press("down", "up")
            await until(pilot, lambda: area.text == "a red circle, drawn by hand")
            assert file.read_text() == before
            await pilot.press("ctrl+s")
            await until(pilot, lambda: "next start" in note(app))
            assert file.read_text() == "a red circle, drawn by hand\n"
            assert "1 job: encode_texts" in note(app)
            assert not clips.edited

            # esc drops an edit
            await pilot.press("e")
            area.load_text("something else")
            await until(pilot, lambda: clips.edited)
            await pilot.press("escape")
            await until(pilot, lambda: not clips.edited)
            assert area.text == "a red circle, drawn by hand"

            # what another program wrote meanwhile is not overwritten
            await pilot.press("e")
            area.load_text("mine")
            await until(pilot, lambda: clips.edited)
            file.write_text("theirs\n")
            await pilot.press("ctrl+s")
            await until(pilot, lambda: app._notifications)
            assert "changed by another program" in next(iter(app._notifications)).message
            assert file.read_text() == "theirs\n"

            # nor when the dataset was read again meanwhile; the edit is kept until it is dropped
            await show(pilot, app, "6", "logs")
            await show(pilot, app, "5", "dataset")
            await until(pilot, lambda: clips.current is not None and clips.current.caption == "theirs")
            assert area.text == "mine"
            assert app.unsaved == ["1 caption"]
            app.clear_notifications()
            await until(pilot, lambda: not app._notifications)
            await pilot.press("ctrl+s")
            await until(pilot, lambda: app._notifications)
            assert file.read_text() == "theirs\n"
            await pilot.press("e", "escape")
            await until(pilot, lambda: area.text == "theirs")
            assert not clips.edited

            # line ends that the field does not know are no edit
            file.write_text("one\u2028two\rthree\n", newline="")
            await pilot.press("r")
            await until(pilot, lambda: area.text.startswith("one"))
            clips.focus()
            await pilot.press("down", "up")
            await pilot.pause(0.2)
            assert not clips.edited

            # words keep some clips
            triangles = len([*root.glob("demo/clips/*triangle*.mp4"), *root.glob("demo/usual/*triangle*.mp4")])
            await pilot.press("slash", *"triangle")
            await until(pilot, lambda: len(clips.rows) == triangles)
            await pilot.press("escape")
            await until(pilot, lambda: len(clips.rows) == 24)

            # a broken config is named, and the screen continues
            (root / "config.yaml").write_text("datasets: 5\n")
            await pilot.press("r")
            await until(pilot, lambda: "config.yaml" in clips.empty)

    asyncio.run(run())


def test_buckets_are_counted_and_problems_stand_above_them() -> None:
    text = bucket_text({"9 x 64 x 64": 8, "17 x 64 x 64": 2}, ["clips: not [there]"]).plain.splitlines()
    assert text[0] == "clips: not [there]"
    assert [line.split()[-1] for line in text[1:]] == ["8", "2"]


@pytest.mark.parametrize("character", ["\x1b", "\x7f", "\x9b", "\u202e", "\u2066"])
def test_no_terminal_obeys_a_caption_and_an_edit_keeps_what_it_holds(character: str) -> None:
    shown = visible(f"a{character}2J zorp\n\t\u00e9")
    assert character not in shown
    assert shown.endswith("2J zorp\n\t\u00e9")
    assert len(shown) == len("a_2J zorp\n\t_")
    assert original(shown) == f"a{character}2J zorp\n\t\u00e9"
