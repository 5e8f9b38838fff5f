"""Draw the pictures of the dashboard for the docs:  python bench/draw_dashboard.py docs/images [PICTURE...]

The dashboard shows the recorded run of the demo in the middle of its training and at its end, a made-up sweep that is
half-way, and a made-up queue in which that run is; the machine is made up, too. Each cell is drawn straight from what
the dashboard composes, so plots, half blocks and lines are exact in any viewer; the files are PNGs with a palette.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import matplotlib
from PIL import Image, ImageDraw, ImageFont
from rich.cells import cell_len
from rich.color import Color

sys.path.insert(0, str(Path(__file__).parents[1]))

from hv15.config import load_config
from hv15.queue.queue_file import VARIABLE, QueueFile
from hv15.records.events import JobDetails, JobsPlanned, JobsStarted
from hv15.records.json_values import JsonObject
from hv15.records.paths import ProjectPaths
from hv15.records.queue import QueuedState
from hv15.records.training import TrainingRecord
from hv15.runs import lock
from hv15.runs.record import RunFolder, append_event
from hv15.units import GIB
from tests.queue.made_up import keep, project, queue, record_run
from tests.tui.recorded import replay_at, show
from tests.tui.test_snapshots import Answer, at_rest
from tui.app import Dashboard
from tui.data import projects
from tui.data.estimate import Estimate, EstimateLine
from tui.data.rerun import Rerun
from tui.data.system import Process, SystemReader, SystemSample
from tui.demo.project import made_up_gpu
from tui.project_files import ProjectFiles
from tui.widgets.jobs_table import JobsTable
from tui.widgets.log_list import LogList
from tui.widgets.navigation import digit
from tui.widgets.projects_table import ProjectsTable
from tui.widgets.runs_table import RunsTable

NOW = time.time()
"""The clock stands still, so that nothing seems to stall while a picture is made."""
SIZE = (120, 40)
"""Columns and lines."""
WIDTH, HEIGHT, POINTS = 10, 20, 16
"""Of a cell, in pixels, and of its letters."""
EXACT = 128
"""Colours of a picture that are kept as they are."""
PAPER, INK = (18, 18, 18), (224, 224, 224)
DOTS = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3))
"""Column and row of each bit of a braille pattern."""
BLOCKS = {
    **{"▀": (0.0, 0.0, 1.0, 0.5), "▄": (0.0, 0.5, 1.0, 1.0), "█": (0.0, 0.0, 1.0, 1.0), "▌": (0.0, 0.0, 0.5, 1.0)},
    **{"▐": (0.5, 0.0, 1.0, 1.0), "▎": (0.0, 0.0, 0.25, 1.0), "▊": (0.0, 0.0, 0.75, 1.0), "▏": (0.0, 0.0, 0.125, 1.0)},
    **{"▔": (0.0, 0.0, 1.0, 0.125), "▕": (0.875, 0.0, 1.0, 1.0)},
    **{sign: (0.0, 1 - eighths / 8, 1.0, 1.0) for eighths, sign in enumerate("▁▂▃▄▅▆▇", start=1)},
}
"""The part of a cell that a block covers: left, top, right, bottom."""

TRAINING, SAMPLED = 0.6, 0.9926
"""Shares of the recording: in the middle of the training, and when the last samples are made."""
ESTIMATE = Estimate(
    (
        EstimateLine("encode latents", 11 * GIB, 840.0),
        EstimateLine("encode texts", 9 * GIB, 60.0),
        EstimateLine("train", 17 * GIB, 5400.0),
        EstimateLine("denoise", 16 * GIB, 1500.0),
        EstimateLine("decode", 5 * GIB, 240.0),
    )
)
SWEEP = """\
models: {source: demo}
datasets: [{video_directory: clips, resolution: [64, 64], target_frames: [9]}]
train: {max_train_steps: 360, validation: {fraction: 0.1, noise_levels: even}}
experiments:
  rank-32: {train.network_dim: 32, train.network_alpha: 32}
sweep:
  grid: {train.learning_rate: [5.0e-4, 2.0e-3]}
  seeds: [1, 2, 3]
"""
SWEPT = {
    "learning_rate-0.0005_seed-1": (1.0, 1.06),
    "learning_rate-0.0005_seed-2": (1.0, 1.09),
    "learning_rate-0.0005_seed-3": (1.0, 1.05),
    "learning_rate-0.002_seed-1": (1.0, 0.98),
    "learning_rate-0.002_seed-2": (1.0, 0.95),
    "learning_rate-0.002_seed-3": (0.45, 1.0),
}
"""Experiment -> how far it is, and its losses as a multiple of the recorded ones."""


# -- pictures ---------------------------------------------------------------------------------------------------------


def picture(app: Dashboard) -> Image.Image:
    """Draw what the dashboard shows now."""
    fonts = Path(matplotlib.get_data_path()) / "fonts/ttf"
    plain, bold = (ImageFont.truetype(str(fonts / f"DejaVuSansMono{kind}.ttf"), POINTS) for kind in ("", "-Bold"))
    image = Image.new("RGB", (SIZE[0] * WIDTH, SIZE[1] * HEIGHT), PAPER)
    draw = ImageDraw.Draw(image)
    for row, strip in enumerate(app.screen._compositor.render_strips()):
        column = 0
        for text, style, control in strip:
            if control:
                continue
            ink, paper = (_rgb(style and style.color, INK), _rgb(style and style.bgcolor, PAPER))
            if style and style.reverse:
                ink, paper = paper, ink
            if style and style.dim:
                ink = tuple((a + b) // 2 for a, b in zip(ink, paper, strict=True))
            for sign in text:
                cells = cell_len(sign)
                left, top = column * WIDTH, row * HEIGHT
                draw.rectangle((left, top, left + cells * WIDTH - 1, top + HEIGHT - 1), fill=paper)
                _draw_sign(draw, sign, left, top, ink, bold if style and style.bold else plain)
                column += cells
    return with_palette(image)


def with_palette(image: Image.Image) -> Image.Image:
    """Reduce a picture to 256 colours: the most frequent ones exactly, and some for all the others."""
    counted = sorted(image.getcolors(image.width * image.height) or (), reverse=True)
    frequent, others = ([color for _, color in part] for part in (counted[:EXACT], counted[EXACT:]))
    palette = Image.new("P", (1, 1))
    colours = [part for color in frequent for part in color]
    if others:
        rare = Image.new("RGB", (len(others), 1))
        rare.putdata(others)
        colours += rare.quantize(256 - EXACT).getpalette() or []
    palette.putpalette(colours)
    return image.quantize(palette=palette, dither=Image.Dither.NONE)


def _rgb(color: Color | None, otherwise: tuple[int, ...]) -> tuple[int, ...]:
    return otherwise if color is None or color.is_default else tuple(color.get_truecolor())


def _draw_sign(
    draw: ImageDraw.ImageDraw, sign: str, left: int, top: int, ink: tuple[int, ...], font: ImageFont.FreeTypeFont
) -> None:
    if sign in BLOCKS:
        x0, y0, x1, y1 = BLOCKS[sign]
        draw.rectangle((left + x0 * WIDTH, top + y0 * HEIGHT, left + x1 * WIDTH - 1, top + y1 * HEIGHT - 1), fill=ink)
    elif "\u2800" <= sign <= "\u28ff":
        for bit, (x, y) in enumerate(DOTS):
            if (ord(sign) - 0x2800) >> bit & 1:
                draw.rectangle((left + 5 * x + 1, top + 5 * y + 1, left + 5 * x + 3, top + 5 * y + 3), fill=ink)
    elif sign.strip():
        draw.text((left, top + 1), sign, font=font, fill=ink)


# -- projects ---------------------------------------------------------------------------------------------------------


def now() -> float:
    """The time."""
    return NOW


def machine(reader: SystemReader, record: object = None, phase: str = "") -> SystemSample:
    """A machine with one GPU, half-way through a training."""
    processes = (Process(4001, "hv15 train", 3 * GIB, 97.0), Process(4000, "snakemake", GIB // 8, 1.0))
    reader.peaks.update({"encode latents": 11 * GIB, "train": 18 * GIB})
    gpus = made_up_gpu(now).read()
    return SystemSample(NOW, 42.0, 16, 30 * GIB, 128 * GIB, 3 * GIB, processes, 300 * GIB, 2000 * GIB, gpus, "")


def last_minutes(reader: SystemReader, name: str) -> tuple[list[float], list[float]]:
    """What it measured: the encoding of clips until three minutes ago, then the training."""
    high = {"gpu0_used": 18.0 * GIB, "gpu0_utilisation": 98.0, "memory": 30.0 * GIB}.get(name, 42.0)
    times = [NOW - 600 + 2 * step for step in range(301)]
    parts = (0.55 + 0.1 * math.sin(step / 5) if step < 210 else 0.94 + 0.06 * math.sin(step / 3) for step in range(301))
    return times, [high * part for part in parts]


def dashboard(root: Path) -> Dashboard:
    """The dashboard on a project folder; a dry run and an estimate have known answers."""
    config = root / "config.yaml"
    app = Dashboard(config, ProjectFiles(config, gpus=made_up_gpu(now), clock=now), host="demo")
    for name, answer in (("dry_run", Rerun(())), ("estimation", ESTIMATE)):
        setattr(app.files, name, lambda *_, answer=answer, **__: Answer(answer))
    return app


@contextmanager
def half_a_sweep(root: Path, recorded: Sequence[dict[str, object]]) -> Iterator[None]:
    """While active, a project has a run that trains the last of its experiments but one."""
    config = root / "config.yaml"
    config.parent.mkdir(parents=True)
    for name, (share, factor) in SWEPT.items():
        rate, seed = name.removeprefix("learning_rate-").split("_seed-")
        config.write_text(SWEEP.partition("experiments:")[0])
        train = {"learning_rate": float(rate), "seed": int(seed)}
        paths = ProjectPaths(root, name)
        paths.training.mkdir(parents=True)
        settings = load_config(config, {"train": train}).dump()
        past: JsonObject = {"dataset": {"digest": "0123456789", "size": 12}, "dit": "demo"}
        TrainingRecord(past, settings).write(paths.training)
        kept = [line for line in recorded if float(str(line.get("step", 0))) <= 360 * share]
        shift = NOW - float(str(kept[-1]["time"])) - (0 if share < 1 else 4000)
        paths.metrics.write_text("".join(f"{json.dumps(_moved(line, shift, factor))}\n" for line in kept))
        if share == 1:
            paths.lora.touch()
    config.write_text(SWEEP)
    trains, waits = (
        JobDetails(id=number, rule="train", experiment=run) for number, run in enumerate((name, "rank-32"))
    )
    run = RunFolder(root, time.strftime("%Y%m%d-%H%M%S-demo"))
    run.create(config)
    run.write_record(os.getpid(), ["snakemake"], ["experiments"])
    for event in (JobsPlanned(jobs=(trains, waits), total=9), JobsStarted(ids=(trains.id,))):
        append_event(run.events, event)
    with ExitStack() as stack:
        held = lock.take(root, run.id)
        assert held is not None
        stack.callback(os.close, held)
        file = stack.enter_context(paths.training_lock.open("w"))
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _moved(line: dict[str, object], shift: float, factor: float) -> dict[str, object]:
    """A line of metrics, later and with other losses."""
    scaled = {name: value * factor for name, value in line.items() if "loss" in name and isinstance(value, float)}
    return line | scaled | {"time": float(str(line["time"])) + shift}


def four_queued(file: QueueFile, root: Path, run: str) -> None:
    """Let the queue be four projects, of which the one in `root` runs."""
    cats, birds = root.parent / "cats", root.parent / "birds"
    record_run(cats, "done")
    for folder in (birds, root.parent / "city-at-night"):
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").write_text("task: t2v\n")
    failed = {"reason": "Training the LoRA: the GPU ran out of memory", "cure": "train.blocks_to_swap: 20"}
    keep(
        file,
        queue(
            project(1, cats, QueuedState.DONE, added=NOW - 9600, started=NOW - 9500, ended=NOW - 5200),
            project(2, birds, QueuedState.FAILED, added=NOW - 9500, started=NOW - 5200, ended=NOW - 900, **failed),
            project(3, root, QueuedState.RUNNING, added=NOW - 9400, started=NOW - 880, run=run, devices=("GPU-0",)),
            project(4, root.parent / "sweep", added=NOW - 9000, targets=("experiments",)),
            project(5, root.parent / "city-at-night", added=NOW - 600),
        ),
    )


# -- screens ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """A picture of a screen after some keys."""

    screen: str
    keys: tuple[str, ...] = ()
    file: str = ""
    """Its name; that of the screen if not given."""

    @property
    def name(self) -> str:
        return self.file or self.screen


IN_TRAINING = (
    Shown("run"),
    Shown("config", ("t", "t", "slash", *"learning_rate", "enter")),
    Shown("charts"),
    Shown("dataset", ("down", "down")),
    Shown("logs"),
    Shown("system"),
    Shown("runs"),
)
IN_THE_QUEUE = (Shown("projects", ("down", "down", "down")),)
AT_THE_END = (
    Shown("samples", ("end", "up", "up", "b", *["up"] * 5)),
    Shown("samples", ("t", *["right"] * 4), "samples-table"),
)
OF_A_SWEEP = (Shown("experiments", ("end", "up")),)


async def draw(root: Path, pictures: Sequence[Shown], out: Path) -> None:
    """Draw screens of a project, one after the other."""
    if not pictures:
        return
    app = dashboard(root)
    async with app.run_test(size=SIZE) as pilot:
        for shown in pictures:
            await show(pilot, app, str(digit(shown.screen)), shown.screen)
            await at_rest(app, pilot)
            for key in shown.keys:
                await pilot.press(key)
            await at_rest(app, pilot)
            picture(app).save(out / f"{shown.name}.png", optimize=True)
            print(f"{out / shown.name}.png", flush=True)


@contextmanager
def made_up_machine(state: Path) -> Iterator[None]:
    """While active, the dashboard sees a machine that is made up, and a queue in a folder of its own."""
    with ExitStack() as stack:
        terminal = {"COLORTERM": "truecolor", "TERM": "xterm-256color"}
        stack.enter_context(patch.dict(os.environ, {**terminal, VARIABLE: str(state)}))
        stack.enter_context(patch.object(SystemReader, "refresh", machine))
        stack.enter_context(patch.object(SystemReader, "ring", last_minutes))
        stack.enter_context(patch.object(projects, "worker_pid", lambda _: 21377))
        stack.enter_context(patch.object(time, "time", now))
        for widget in (JobsTable, LogList, ProjectsTable, RunsTable):  # their clock is a default
            stack.enter_context(patch.dict(widget.__init__.__kwdefaults__, clock=now))
        yield


def main() -> None:
    """Draw all pictures, or some of them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("pictures", nargs="*")
    parser.add_argument("--projects", type=Path, help="where the projects are made; the folder is shown, and removed")
    options = parser.parse_args()

    def wanted(pictures: Sequence[Shown]) -> list[Shown]:
        return [each for each in pictures if each.name in options.pictures or not options.pictures]

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        stack.enter_context(made_up_machine(Path(folder, "state")))
        root = options.projects or Path(folder, "data")
        root.mkdir(parents=True)
        stack.callback(shutil.rmtree, root)
        with replay_at(root / "demo", TRAINING, clock=now) as replay:
            asyncio.run(draw(replay.root, wanted(IN_TRAINING), options.out))
            four_queued(QueueFile(), replay.root, replay.run.id)
            asyncio.run(draw(replay.root, wanted(IN_THE_QUEUE), options.out))
        with replay_at(root / "samples/demo", SAMPLED, clock=now) as replay:
            asyncio.run(draw(replay.root, wanted(AT_THE_END), options.out))
            recorded = [json.loads(line) for line in ProjectPaths(replay.root).metrics.read_text().splitlines()]
        with half_a_sweep(root / "sweep", recorded):
            asyncio.run(draw(root / "sweep", wanted(OF_A_SWEEP), options.out))


if __name__ == "__main__":
    main()
