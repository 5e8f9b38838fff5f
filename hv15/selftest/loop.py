"""The training loop on the device: waiting for data and for the host, a stop by a signal, a state that is resumed."""

from __future__ import annotations

import io
import os
import shutil
import signal
import threading
import warnings
from contextlib import redirect_stderr
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from hv15.cache.batches import BatchStream, Stores, TrainingItem
from hv15.models import DiT
from hv15.records.json_values import parse_object
from hv15.records.paths import ProjectPaths
from hv15.records.selftest import Measured
from hv15.selftest.checks import MachineCheck
from hv15.selftest.sizes import NUMBERS_DIT
from hv15.selftest.stand import Skipped, Stand, Wrong, moved
from hv15.selftest.training import REPEATABLE, Options, make_settings, random_example, repeatable, training
from hv15.train.loop import LoopSettings, Trainer
from hv15.train.run import make_reader
from hv15.train.signals import Stopped
from hv15.train.step_batches import StepBatches

STEPS, STOP_AT = 6, 4
"""Steps of a training, and the reading of an item at which a signal comes."""
OPTIONS: Options = {"network_dropout": 0.1, **REPEATABLE}
"""Of that training."""
LATENT = (2, 8, 8)
"""Latent frames, height, width of its clips."""
SYNCHRONIZING = "synchronizing CUDA operation"
"""In torch's warnings of operations for which the host waits."""


def loop_checks(stand: Stand) -> list[MachineCheck]:
    """The checks of this part."""
    return [
        MachineCheck("loop", "host syncs in a training step", partial(host_syncs, stand), 2),
        MachineCheck("loop", "a step that is not finite: equal LoRA", partial(bad_step, stand), 2),
        MachineCheck("loop", "stop by a signal, resume: equal LoRA", partial(stop_and_resume, stand), 5),
        MachineCheck("loop", "waiting for data", partial(data_wait, stand), 3),
    ]


class OneProcess:
    """Trains alone."""

    process_index = 0
    is_main_process = True

    def wait_for_everyone(self) -> None:
        """There is nobody else."""


@dataclass
class MemoryStore:
    """Items in memory; a signal is sent to this process when so many have been read."""

    items: dict[str, dict[str, Tensor]]
    stop_at: int | None = None
    read_count: int = field(default=0, init=False)

    def has(self, key: str) -> bool:
        return key in self.items

    def read(self, key: str) -> dict[str, Tensor]:
        """Return an item's tensors: latents [C, F, h, w], or text and glyphs [L, D]."""
        self.read_count += 1
        if self.read_count == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.items[key]


def _stores(stop_at: int | None) -> Stores:
    generator = torch.Generator().manual_seed(0)
    clips = {
        f"clip {i}": {"latents": torch.randn(NUMBERS_DIT.latent_channels, *LATENT, generator=generator)}
        for i in range(3)
    }
    texts = {
        f"text {i}": {
            "text": torch.randn(5 + i, NUMBERS_DIT.text_dim, generator=generator),
            "glyphs": torch.zeros(0, NUMBERS_DIT.glyph_dim),
        }
        for i in range(3)
    }
    return Stores(MemoryStore(clips, stop_at), MemoryStore(texts))


def _train(stand: Stand, folder: Path, stop_at: int | None = None) -> Tensor:
    """Train with the real loop, or resume what is in the folder; return the LoRA's weights, fp32 [n].

    Raises:
        Stopped: a signal came.
    """
    settings = make_settings({**OPTIONS, "state_every_n_steps": 1000})
    options = settings.train
    items = [TrainingItem(f"clip {i}", f"text {i}", LATENT) for i in range(3)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dit = moved(DiT(NUMBERS_DIT).requires_grad_(False).eval(), stand.device, stand.dtype)
    with repeatable(), training(dit, stand.device, OPTIONS) as made, redirect_stderr(io.StringIO()):
        trainer = Trainer(
            settings=LoopSettings.from_settings(options, STEPS),
            optimizer_step=made.step,
            batches=StepBatches(BatchStream(items, options.seed), 1),
            reader=make_reader(settings, _stores(stop_at)),
            accelerator=OneProcess(),
            folder=folder,
            spec="selftest",
        )
        trainer.resume()
        return made.weights()


def _folder(stand: Stand, name: str) -> Path:
    if not stand.has_data:
        raise Skipped("the device has no data")
    folder = stand.folder / name
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def stop_and_resume(stand: Stand) -> Measured:
    """A training that is stopped and resumed, and one that is not."""
    if threading.current_thread() is not threading.main_thread():
        raise Skipped("signals come to the main thread only")
    whole, parts = _folder(stand, "loop"), _folder(stand, "loop resumed")
    try:
        expected = _train(stand, whole)
        try:
            _train(stand, parts, STOP_AT)
        except Stopped as stopped:
            note = f"stopped after step {stopped.step} of {STEPS}"
        else:
            raise Wrong("a training that was sent SIGTERM did not stop")
        found = _train(stand, parts)
    finally:
        for folder in (whole, parts):
            shutil.rmtree(folder, ignore_errors=True)
    return Measured(error=stand.difference(found, expected), bound=0.0, note=note)


def data_wait(stand: Stand) -> Measured:
    """The part of the time of steps in which the loop waits for what is read ahead."""
    folder = _folder(stand, "loop")
    try:
        _train(stand, folder)
        lines = [parse_object(line) for line in (folder / ProjectPaths().metrics.name).read_text().splitlines()]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    steps = [line for line in lines if "data_wait_s" in line][1:]  # the first waits for the first item
    waited, taken = (sum(float(str(step[name])) for step in steps) for name in ("data_wait_s", "step_s"))
    return Measured(rate=100 * waited / taken if taken else 0.0, unit="%", note=f"{len(steps)} steps")


def bad_step(stand: Stand) -> Measured:
    """The LoRA and AdamW's tensors after a step whose loss is NaN, beside those before it."""
    if not stand.has_data:
        raise Skipped("the device has no data")
    dit = stand.random(lambda: DiT(NUMBERS_DIT), stand.dtype)
    example = random_example(NUMBERS_DIT, LATENT, [9])

    with training(dit, stand.device) as made:

        def content() -> Tensor:
            moments = [tensor.flatten() for tensor in made.state() if tensor.ndim]  # the others count steps
            return torch.cat([made.weights(), *moments])

        made.run(example)
        expected = content()
        made.run(replace(example, noise=example.noise * torch.nan))
        return Measured(error=stand.difference(content(), expected), bound=0.0)


def host_syncs(stand: Stand) -> Measured:
    """Operations that make the host wait for the GPU, in a step whose example is in pinned memory."""
    if not stand.on_cuda:
        raise Skipped("only on GPUs")
    dit = stand.random(lambda: DiT(NUMBERS_DIT), stand.dtype)
    example = random_example(NUMBERS_DIT, LATENT, [9]).pinned()
    with training(dit, stand.device) as made:
        made.run(example)  # tables and the optimizer's state are made
        stand.clock.wait()
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                made.run(example)
        finally:
            torch.cuda.set_sync_debug_mode(before)
    places = [f"{Path(each.filename).name}:{each.lineno}" for each in caught if SYNCHRONIZING in str(each.message)]
    if places:
        raise Wrong(f"the host waits for the GPU {len(places)} times, at {', '.join(dict.fromkeys(places))}")
    return Measured(rate=0.0, unit="syncs")
