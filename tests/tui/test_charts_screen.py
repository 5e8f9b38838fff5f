"""The screen Charts: curves of a real metrics file, cut to what can be drawn, and of several trainings."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from textual.app import ComposeResult
from textual.theme import Theme

from hv15.records.training import TrainingRecord
from tests.records.steps import lines, step_record
from tests.tui.recorded import Themed
from tests.tui.watched import Watched, dashboard, settle, text_of
from tui.app import Dashboard
from tui.data.curves import CHARTS, Series, sign_of
from tui.dialogs.choose import ChooseDialog
from tui.dialogs.training import TrainingDialog
from tui.no_color import tolerant
from tui.screens.charts import ChartsScreen
from tui.themes import DARK, LIGHT, SERIES
from tui.watcher import Watcher
from tui.widgets.chart import Chart, Curve, LogFormatter, SparseFormatter, StepFormatter, TimeFormatter, curves_to_draw


def write_metrics(folder: Path, name: str = "", steps: int = 3000, scale: float = 1.0) -> Path:
    path = folder / "results" / name / "train" / "metrics.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(measured(steps, scale))
    return path


@cache
def measured(steps: int, scale: float) -> str:
    """The lines of a training, with a spike."""
    text = ""
    for step in range(1, steps + 1):
        loss = scale * (0.4 * math.exp(-step / 500) + 0.1)
        loss += 5.0 * scale if step == 1234 else 0.0
        record = step_record(step, loss=loss, loss_by_sigma=(None, *[loss] * 9), step_s=0.5, data_wait_s=0.1)
        text += lines(replace(record, epoch=step / 100, time=1000.0 + step * 0.5))
    return text


def charts(folder: Path) -> Dashboard:
    app = dashboard(folder, at="charts")
    assert isinstance(app.files, Watched)
    app.files.real_metrics = True
    app.watcher = Watcher(app, app.files.sources())
    return app


def chart(app: Dashboard, name: str) -> Chart:
    return app.screen.query_one(f"#chart-{name}", Chart)


async def test_curves_are_cut_to_what_can_be_drawn_and_keep_their_peaks(tmp_path: Path) -> None:
    write_metrics(tmp_path)
    app = charts(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await settle(pilot)
        loss = chart(app, "loss")
        raw = loss.curves[0]
        assert 50 < len(raw.x) <= 2 * loss.columns + 2
        assert raw.y.max() == pytest.approx(5.1, abs=0.1), "a spike of one step in 3000 is seen"
        assert [curve.label for curve in loss.curves] == ["raw", "smoothed"], "there is no validation loss yet"
        assert len(chart(app, "loss_by_sigma").curves) == 9, "no sample fell into the first bin"
        assert chart(app, "lr").curves[0].y == pytest.approx(1e-4)
        shown = text_of(app)
        for info in CHARTS[:6]:
            assert info.title in shown
        await pilot.press("right_square_bracket")
        await settle(pilot)
        assert chart(app, "memory").curves[-1].y == pytest.approx(16.0), "GiB"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "count"),
    [((80, 24), 1), ((120, 40), 6), ((200, 55), 9)],
)
async def test_as_many_charts_as_there_is_room_for_and_keys_for_the_others(
    tmp_path: Path, size: tuple[int, int], count: int
) -> None:
    write_metrics(tmp_path, steps=20)
    app = charts(tmp_path)
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        seen: set[str | None] = set()
        for _ in range(-(-len(CHARTS) // count)):
            shown = {each.id for each in app.screen.query(Chart) if each.display}
            assert len(shown) <= count
            assert all(each.region.area for each in app.screen.query(Chart) if each.display)
            seen |= shown
            await pilot.press("right_square_bracket")
            await pilot.pause()
        assert len(seen) == len(CHARTS)


async def test_the_axis_goes_along_steps_time_and_epochs_and_logarithmic(tmp_path: Path) -> None:
    write_metrics(tmp_path, steps=400)
    app = charts(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        ends = []
        for _ in range(3):
            ends.append(float(chart(app, "lr").curves[0].x[-1]))
            await pilot.press("a")
            await settle(pilot)
        assert ends[0] == pytest.approx(400, abs=10)
        assert ends[1] == pytest.approx(199.5, abs=5), "seconds of training"
        assert ends[2] == pytest.approx(4.0, abs=0.1)
        loss = chart(app, "loss")
        loss.focus()
        await pilot.press("y")
        await pilot.pause()
        drawn = loss._datasets[0]
        assert drawn.y.max() == pytest.approx(math.log10(loss.curves[0].y.max()))
        assert "(log)" in text_of(app)


@pytest.mark.slow
async def test_zooming_loads_the_part_that_is_seen_in_full(tmp_path: Path) -> None:
    write_metrics(tmp_path, steps=3000)
    app = charts(tmp_path)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        loss = chart(app, "loss")
        loss.focus()
        for _ in range(12):
            await pilot.press("plus")
        await settle(pilot)
        low, high = loss.seen_x
        assert high - low < 1000
        inside = loss.curves[0].x
        inside = inside[(inside >= low) & (inside <= high)]
        assert len(inside) > 50, "more points than the whole curve has in this part"
        await pilot.press("r")
        await settle(pilot)
        assert not loss.zoomed
        assert loss.curves[0].x[-1] == 3000


async def test_several_trainings_over_one_another(tmp_path: Path) -> None:
    write_metrics(tmp_path, steps=300)
    write_metrics(tmp_path, "slow[er]", steps=200, scale=2.0)
    app = charts(tmp_path)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("o")
        await settle(pilot)
        assert isinstance(app.screen, ChooseDialog)
        await pilot.press("space", "down", "space", "enter")
        await settle(pilot)
        await settle(pilot)
        curves = chart(app, "loss").curves
        assert [(curve.label, curve.mark, len(curve.x) > 0) for curve in curves] == [
            ("train", "1", True),
            ("slow[er]", "2", True),
        ]
        assert curves[1].y[-1] > 1.5 * curves[0].y[-1]
        assert "1 train  2 slow[er]" in text_of(app)


@pytest.mark.slow
async def test_the_trainings_facts_are_shown_and_closed(tmp_path: Path) -> None:
    write_metrics(tmp_path, steps=20)
    app = charts(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        for screen in ("1", "3"):
            await pilot.press(screen)
            await settle(pilot)
            await pilot.press("i")
            await settle(pilot)
            assert isinstance(app.screen, TrainingDialog)
            assert "steps             20" in text_of(app)
            await pilot.press("escape")
            await settle(pilot)
        assert isinstance(app.screen, ChartsScreen)


@pytest.mark.slow
async def test_overlaid_trainings_are_named_by_what_differs(tmp_path: Path) -> None:
    for name, rate in (("", 1e-4), ("fast", 4e-4)):
        folder = write_metrics(tmp_path, name, steps=20).parent
        TrainingRecord({}, {"train": {"learning_rate": rate}}).write(folder)
    app = charts(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await pilot.press("o")
        await settle(pilot)
        assert "fast  learning_rate 0.0004" in text_of(app)
        await pilot.press("space", "down", "space", "enter")
        await settle(pilot)
        await settle(pilot)
        assert [curve.label for curve in chart(app, "loss").curves] == ["learning_rate 0.0001", "learning_rate 0.0004"]
        assert "1 train: learning_rate 0.0001" in text_of(app)
        assert "2 fast: learning_rate 0.0004" in text_of(app)


async def test_a_file_that_grows_is_drawn_on_and_a_missing_one_is_no_mistake(tmp_path: Path) -> None:
    app = charts(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert "nothing measured yet" in text_of(app)
        write_metrics(tmp_path, steps=10)
        await settle(pilot)
        await settle(pilot)
        assert chart(app, "lr").curves[0].x[-1] == 10
        write_metrics(tmp_path, steps=30)
        await settle(pilot)
        await settle(pilot)
        assert chart(app, "lr").curves[0].x[-1] == 30
        assert isinstance(app.screen, ChartsScreen)


def test_curves_without_a_point_for_each_step_have_signs_of_their_own() -> None:
    x = np.arange(3.0)
    marks = {}
    for info in CHARTS:
        curves = curves_to_draw(info, [Series("", x, x, 3) for _ in info.curves])
        marks[info.name] = "".join(curve.mark for curve in curves)
    assert marks["loss"] == "◆◇", "steps need none"
    assert marks["loss_t2v"] == "◆◇●○"
    assert marks["loss_by_quantile"] == "123456789"
    assert marks["loss_by_sigma"] == "0123456789"


def test_ticks_are_never_more_than_there_is_room_for() -> None:
    for room in (2, 3, 5):
        for low, high in ((0.0, 1.0), (0.013, 7.9), (-3.0, 4.0), (1e-5, 1e-4)):
            assert len(SparseFormatter(room).get_ticks(low, high)) <= room
    decades = LogFormatter(10).get_ticks(-5.2, -0.8)
    assert decades == [-5.0, -4.0, -3.0, -2.0, -1.0]
    assert LogFormatter(10).get_labels_for_ticks([-4.0, 0.0]) == ["0.0001", "1"]
    assert StepFormatter(5).get_labels_for_ticks([500.0, 1500.0, 2e6]) == ["500", "1.5k", "2M"]
    assert TimeFormatter(5).get_labels_for_ticks([60.0, 7200.0]) == ["1:00", "2:00:00"]


@pytest.mark.slow
async def test_flat_and_odd_values_can_be_drawn(tmp_path: Path) -> None:
    app = charts(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        loss = chart(app, "loss")
        x = np.arange(5.0)
        for values in ([1e10] * 5, [0.0] * 5, [math.nan, 1, math.inf, 2, -1], [], [3.0]):
            for log in (False, True):
                loss.log_axis = log
                loss.show([Curve("odd", x[: len(values)], np.array(values, float), mark="1")])
                await pilot.pause()


@pytest.mark.parametrize(
    "size", [(80, 8), *(pytest.param((columns, 24), marks=pytest.mark.slow) for columns in (12, 20))]
)
async def test_a_chart_without_a_cell_for_its_curve_bears_every_key(tmp_path: Path, size: tuple[int, int]) -> None:
    write_metrics(tmp_path, steps=20)
    app = charts(tmp_path)
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        await pilot.press("left", "right", "up", "down", "plus", "minus", "ctrl+up", "ctrl+down", "r", "y", "a")
        await settle(pilot)
        assert app.is_running


async def test_a_single_training_that_was_chosen_is_named(tmp_path: Path) -> None:
    app = charts(tmp_path)
    app.files.overlaid = (("11-25 18:46:05 train", write_metrics(tmp_path, "earlier", steps=20)),)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        assert "only 11-25 18:46:05 train" in text_of(app)


@pytest.mark.slow
async def test_a_chart_can_be_resized_before_it_has_all_its_parts(tmp_path: Path) -> None:
    app = charts(tmp_path)
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await chart(app, "loss").query("#legend").remove()
        await pilot.resize_terminal(100, 30)
        await settle(pilot)
        assert app.is_running


def lightness_and_hue(colour: str) -> np.ndarray:
    """A colour in CIE L*a*b*, where distances are as eyes see them."""
    srgb = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(to_xyz) @ linear / [0.9505, 1.0, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("theme", [DARK, LIGHT], ids=lambda theme: theme.name)
def test_ten_curves_have_ten_colours(theme: Theme) -> None:
    colours = [lightness_and_hue(theme.variables[name]) for name in (*SERIES[:10], "faint")]
    colours.append(lightness_and_hue(str(theme.background)))
    for one, other in itertools.combinations(colours, 2):
        assert np.linalg.norm(one - other) > 20, "3 is told from one another side by side, 20 also in thin lines"


async def test_ten_curves_are_told_apart_without_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    class Alone(Themed):
        def __init__(self) -> None:
            super().__init__()
            self._filters = tolerant(self._filters)

        def compose(self) -> ComposeResult:
            yield Chart()

    app = Alone()
    async with app.run_test(size=(100, 40)) as pilot:
        await pilot.pause()
        x = np.arange(100.0)
        app.query_one(Chart).show([Curve(f"run {n}", x, x * (n + 1), n, mark=sign_of(n)) for n in range(10)])
        await pilot.pause()
        shown = "\n".join(strip.text for strip in app.screen._compositor.render_strips())
        for number in range(10):
            assert shown.count(sign_of(number)) >= 3, f"curve {number} is named on the way"
        assert len({sign_of(number) for number in range(10)}) == 10
