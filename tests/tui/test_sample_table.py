"""The tables of the screen Samples, by keys, and a sample that is made again from there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _pytest.mark import ParameterSet
from textual.app import ComposeResult
from textual.pilot import Pilot
from textual.widgets import Input

from hv15.records.outputs import LATENTS, VIDEO, SampleOutput
from hv15.records.paths import ProjectPaths
from hv15.records.shard import PARTS, ShardPart, failure_beside
from hv15.records.spec import Spec
from hv15.runs import control
from hv15.runs.record import RunFolder
from tests.tui.data.test_sample_matrix import project, sampled
from tests.tui.recorded import Themed, until
from tests.tui.watched import card, dashboard, job, jobs_view, run_view, settle, text_of
from tui.app import Dashboard
from tui.data.clips import Pixels
from tui.data.jobs import JobState
from tui.data.sample_matrix import SampleMatrix, by_step
from tui.data.samples import Sample
from tui.dialogs.again import NAMES, AgainDialog
from tui.screens.samples import SamplesScreen
from tui.widgets.sample_table import SampleTable
from tui.widgets.video import Player

SMALL, USUAL, LARGE = (80, 24), (120, 40), (200, 55)
"""The small one has no room beside the table, the large one shows the film there."""


def slow(*sizes: tuple[int, int]) -> list[ParameterSet]:
    return [pytest.param(size, marks=pytest.mark.slow) for size in sizes]


async def opened(pilot: Pilot[None], views: int = 0, samples: int = 1) -> SamplesScreen:
    """The screen, with as many samples as there are, and turned to a view."""
    await settle(pilot)
    screen = pilot.app.screen
    assert isinstance(screen, SamplesScreen)
    await until(pilot, lambda: len(screen._samples) >= samples)
    for _ in range(views):
        await pilot.press("t")
    await pilot.pause()
    return screen


def here(screen: SamplesScreen) -> tuple[str, str]:
    """The titles of the cell under the cursor."""
    table = screen.query_one(SampleTable)
    row, column = table.place
    return table.grid.rows[row], table.grid.columns[column]


@pytest.mark.parametrize("size", [SMALL, *slow(LARGE, USUAL)])
async def test_arrows_move_and_enter_plays(tmp_path: Path, size: tuple[int, int]) -> None:
    app = dashboard(project(tmp_path), at="samples")
    async with app.run_test(size=size) as pilot:
        screen = await opened(pilot, views=1, samples=7)
        table, player = screen.query_one(SampleTable), screen.query_one(Player)
        assert table.has_focus
        assert here(screen) == ("bird", "final"), "as in the list"
        await pilot.press("home")
        shown = text_of(app)
        assert "prompts and steps" in shown
        assert "step 200" in shown
        assert "not yet" in shown, "the config asks for the dog"
        table.go_to(tmp_path / "results/samples/cat.mp4")
        assert here(screen) == ("cat", "final")
        await pilot.press("left", "left")
        assert here(screen) == ("cat", "step 200")
        assert screen._current is not None
        assert screen._current.kind == "checkpoint", "the newest"
        await pilot.press("full_stop")
        assert screen._current.kind == "preview"
        await pilot.press("b", "right")
        assert here(screen) == ("cat", "step 1,000")
        await pilot.press("enter")
        await until(pilot, lambda: all(view.frames is not None for view in player.views))
        assert [clip.title[:4] for clip in player.clips] == ["A · ", "B · "]
        assert table.display == (size[0] >= 160) or not table.region.area
        await pilot.press("escape")
        await pilot.pause()
        assert table.has_focus
        assert table.region.area
        assert "B " in text_of(app)


@pytest.mark.slow
async def test_titles_tell_strengths_apart(tmp_path: Path) -> None:
    """Where there is room they are whole, and else they are cut in the middle."""
    project(tmp_path)
    style = {"path": "style.safetensors", "multiplier": 1.0}
    for strength in (0.4, 0.8):
        loras = [style, {"path": "other.safetensors", "multiplier": strength}]
        sampled(tmp_path, f"results/samples/cat.with-other.x{strength}.mp4", lora_multiplier=None, loras=loras)
    app = dashboard(tmp_path, at="samples")
    async with app.run_test(size=(140, 30)) as pilot:
        screen = await opened(pilot, views=2, samples=9)
        screen.query_one(SampleTable).pictures = False
        await until(pilot, lambda: "style + other at 0.4 style + other at 0.8" in text_of(app))
        await pilot.resize_terminal(80, 30)
        await until(pilot, lambda: "style …at 0.4 style …at 0.8" in text_of(app))


@pytest.mark.slow
async def test_the_same_sample_stays_from_view_to_view(tmp_path: Path) -> None:
    app = dashboard(project(tmp_path), at="samples")
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot, samples=7)
        entries = screen.query_one("#samples")
        entries.move_to_key(tmp_path / "results/samples/cat.base.mp4")  # type: ignore[attr-defined]
        await pilot.pause()
        await pilot.press("t")
        assert here(screen) == ("cat", "no LoRA")
        await pilot.press("t")
        assert here(screen) == ("cat", "no LoRA")
        assert "prompts and LoRAs" in text_of(app)
        await pilot.press("right", "right")
        assert here(screen) == ("cat", "rank-8 at 0.5")
        await pilot.press("t")
        assert screen.query_one("#samples").has_focus
        assert screen._current is not None
        assert screen._current.experiment == "rank-8"


@pytest.mark.parametrize("size", [SMALL, *slow(USUAL, LARGE)])
async def test_without_samples_it_says_what_to_do(tmp_path: Path, size: tuple[int, int]) -> None:
    app = dashboard(tmp_path, at="samples")
    (tmp_path / "config.yaml").write_text("task: t2v\n")
    async with app.run_test(size=size) as pilot:
        screen = await opened(pilot, samples=0)
        for _ in range(3):
            await pilot.pause()
            words = " ".join(text_of(app).replace("│", " ").split())
            assert "sample.prompts in the config" in words
            await pilot.press("enter", "space", "a", "b", "v", "t")
        assert screen._current is None


def many(count: int) -> SampleMatrix:
    path = Path("/none/x.mp4")
    one = Sample("x", "x", 1, "preview", "", path, "video", 1, 1.0)
    samples = [
        replace(one, prompt_name=f"prompt-{row:03}", step=step, path=path.with_name(f"{row}-{step}.mp4"))
        for row in range(count)
        for step in range(100, 2100, 100)
    ]
    return by_step(samples, {f"prompt-{row:03}": False for row in range(count)})


@pytest.mark.parametrize("count", [1, pytest.param(200, marks=pytest.mark.slow)])
async def test_of_many_cells_only_those_in_sight_are_read(count: int) -> None:
    read: list[Path] = []

    def reader(path: Path, width: int, height: int) -> Pixels:
        read.append(path)
        return np.full((height, width, 3), 128, np.uint8)

    class Alone(Themed):
        def compose(self) -> ComposeResult:
            yield SampleTable(reader)

    app = Alone()
    async with app.run_test(size=(80, 24)) as pilot:
        table = app.query_one(SampleTable)
        table.show(many(count))
        table.focus()
        await until(pilot, lambda: read)
        await pilot.pause()
        await pilot.press("end", *["right"] * 30)
        assert table.place == (count - 1, 20)
        table.action_other(1)
        await until(pilot, lambda: any(path.name == f"{count - 1}-2000.mp4" for path in read))
        assert len(set(read)) < 100, "of 4,000"
        await pilot.press("w", "home")
        assert table.place == (0, 20)
        words = "\n".join(strip.text for strip in app.screen._compositor.render_strips())
        assert "▸not yet" in words
        assert "step 2,000" in words
        await pilot.resize_terminal(30, 8)
        await pilot.press("left")
        assert table.place == (0, 19)


class Started:
    """Stands for `control.start_command`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs: list[tuple[str, list[str]]] = []
        monkeypatch.setattr(control, "start_command", self)

    def __call__(self, config: Path, title: str, words: list[str]) -> RunFolder:
        self.runs.append((title, words))
        return RunFolder(config.parent, "20270115-080000-0000")


def sampling(state: JobState, **more: Any) -> Any:
    """The jobs of a run that samples again."""
    log = ("results/again.log",)
    return jobs_view(job(1, state, "sample", wildcards={"title": "cat: seed 5"}, log=log), **more)


async def filled(pilot: Pilot[None], **values: str) -> None:
    """Open the form and type into it."""
    app = pilot.app
    await pilot.press("a")
    await until(pilot, lambda: isinstance(app.screen, AgainDialog) and app.screen.is_mounted)
    for name, value in values.items():
        app.screen.query_one(f"#again-{name}", Input).value = value


@pytest.mark.parametrize("size", [SMALL, *slow(USUAL, LARGE)])
async def test_a_sample_is_made_again_and_appears(
    tmp_path: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = Started(monkeypatch)
    app = dashboard(project(tmp_path), at="samples")
    (tmp_path / "results/train.safetensors").touch()
    async with app.run_test(size=size) as pilot:
        screen = await opened(pilot, views=1, samples=7)
        screen.query_one(SampleTable).go_to(tmp_path / "results/samples/cat.mp4")
        await filled(pilot, seed="5", frames="8")
        for word in (*NAMES.values(), "this LoRA", "Make it"):
            assert word in text_of(app), word
        await pilot.press("ctrl+s")
        await pilot.pause()
        assert "✗ frames: " in text_of(app)
        assert isinstance(app.screen, AgainDialog)
        assert app.screen.query_one("#again-frames").has_focus
        app.screen.query_one("#again-frames", Input).value = "9"
        await pilot.press("enter")
        await until(pilot, lambda: started.runs)
        [(title, words)] = started.runs
        assert title == "cat: seed 5, 9 frames"
        assert words[words.index("--seed") + 1] == "5"
        assert words[-2:] == ["--", "a cat"]

        (tmp_path / "results/again.log").write_text("loading\nsample  44%  7/16 steps\n")
        await settle(pilot, run=run_view(root=tmp_path), jobs=sampling(JobState.RUNNING))
        await until(pilot, lambda: "7/16 steps" in text_of(app))
        assert "▶ sampling cat: seed 5" in text_of(app)

        path = "results/again/a-cat-seed5-0123abcd.mp4"
        sampled(tmp_path, path, seed=5, lora_multiplier=None, loras=[{"path": "results/train.safetensors"}])
        await settle(pilot, jobs=sampling(JobState.DONE, ended=True))
        await until(pilot, lambda: screen._current is not None and screen._current.path == tmp_path / path)
        assert here(screen) == ("cat", "this LoRA")
        assert "▶ sampling" not in text_of(app)


@pytest.mark.slow
async def test_what_cannot_be_made_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = dashboard(project(tmp_path), at="samples")
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot, samples=7)
        await settle(pilot, run=run_view(root=tmp_path), jobs=sampling(JobState.RUNNING))
        await settle(pilot, jobs=sampling(JobState.FAILED, failures=(card(),)))
        assert "✗ cat: seed 5: the GPU ran out of memory" in text_of(app)
        await settle(pilot, jobs=jobs_view(job(1, JobState.RUNNING)))
        assert "cat: seed 5" not in text_of(app)

        assert isinstance(app, Dashboard)
        (tmp_path / "results/samples/odd.mp4").write_bytes(b"no video")
        await until(pilot, lambda: any(each.name == "odd" for each in screen._samples))
        screen.query_one("#samples").move_to_key(tmp_path / "results/samples/odd.mp4")  # type: ignore[attr-defined]
        await pilot.press("a")
        await pilot.pause()
        assert isinstance(app.screen, SamplesScreen), "the file does not say what it was made from"


async def test_a_job_at_work_is_seen_in_its_cells(tmp_path: Path) -> None:
    app = dashboard(project(tmp_path), at="samples")
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot, views=1, samples=7)
        await pilot.press("home")
        assert "at work" not in text_of(app)
        working = job(1, JobState.RUNNING, "sample_latents", wildcards={"name": "dog"})
        await settle(pilot, run=run_view(root=tmp_path), jobs=jobs_view(working))
        assert "at work" in text_of(app)
        await settle(pilot, jobs=jobs_view(replace(working, state=JobState.DONE)))
        assert "at work" not in text_of(app)


@pytest.mark.slow
async def test_of_a_shard_one_sample_is_at_work_and_the_others_wait(tmp_path: Path) -> None:
    app = dashboard(project(tmp_path), at="samples")
    paths, parts = ProjectPaths(tmp_path), list[ShardPart]()
    for name in ("dog.base", "dog"):
        for output in (LATENTS, VIDEO):
            product = output.path(ProjectPaths(), name)
            parts.append(ShardPart(f"{output.rule}.{name}", product, {}, {}))
    Spec({}, {PARTS: [part.to_json() for part in parts]}).write(paths.spec("sample_shard.0"))

    def leave(output: SampleOutput, name: str) -> Path:
        file = tmp_path / ProjectPaths().before_taken(output.path(ProjectPaths(), name))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        return file

    jobs = jobs_view(
        job(1, JobState.RUNNING, "sample_shard", wildcards={"shard": "0"}),
        *(job(2 + number, JobState.WAITING, "sample_video", wildcards={"name": name})
          for number, name in enumerate(("dog.base", "dog"))),
    )  # fmt: skip
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot, views=1, samples=7)
        await pilot.press("home")
        table = screen.query_one(SampleTable)
        await settle(pilot, run=run_view(root=tmp_path), jobs=jobs)

        async def at_work(name: str) -> None:
            pilot.app.watcher.refresh("shards")  # type: ignore[attr-defined]
            await until(pilot, lambda: table.at_work == {name})

        await at_work("dog.base")
        assert table.waiting == {"dog.base", "dog"}
        assert text_of(app).count("at work") == text_of(app).count("waiting") == 1
        leave(LATENTS, "dog.base")
        await at_work("dog")  # first all are denoised
        leave(LATENTS, "dog")
        await at_work("dog.base")
        leave(VIDEO, "dog.base")
        await at_work("dog")
        failure_beside(leave(VIDEO, "dog")).touch()
        pilot.app.watcher.refresh("shards")  # type: ignore[attr-defined]
        await until(pilot, lambda: not table.at_work)
