"""Passes that are recorded and repeated give the same bits, whatever is sampled with them."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from hv15.config.sample import SampleSettings
from hv15.errors import UserError
from hv15.lora.weighted import WeightedLoRA, apply_all
from hv15.memory import WEIGHTS
from hv15.models import Condition, DiT
from hv15.plan.metered_steps import PassSize, empty_condition, run_denoising
from hv15.sample.advice import about_graphs
from hv15.sample.denoise import denoise
from hv15.sample.graphs import CudaRecorder, Pass, Replayed, StandIn, replayed
from hv15.sample.noise import initial_noise
from hv15.sample.schedule import sigmas
from hv15.selftest.training import make_settings
from tests.models.golden_dit import TINY, golden_dit
from tests.sample.conftest import StandIn as VelocityModel
from tests.sample.conftest import make_lora

SHAPE = (1, 4, 3, 4, 5)
CPU = torch.device("cpu")


class Counting(StandIn):
    def __init__(self) -> None:
        self.warm_ups = self.recordings = self.replays = 0

    def warm_up(self, run: Pass) -> Tensor:
        self.warm_ups += 1
        return super().warm_up(run)

    def record(self, run: Pass) -> Pass:
        self.recordings += 1
        again = super().record(run)

        def replay() -> Tensor:
            self.replays += 1
            return again()

        return replay


class Traced(Counting):
    """Records the operators that a pass calls, as a graph does: what the host computes meanwhile is not repeated."""

    def record(self, run: Pass) -> Pass:
        return super().record(make_fx(lambda: run())())


def condition(seed: int, *, text: int = 3, glyphs: int = 0, vision: int | None = None) -> Condition:
    generator = torch.Generator().manual_seed(seed)

    def states(tokens: int, width: int) -> Tensor:
        return torch.randn(1, tokens, width, generator=generator)

    image = None if vision is None else states(vision, TINY.vision_dim)
    return Condition(states(text, TINY.text_dim), [text], states(glyphs, TINY.glyph_dim), [glyphs], image)


def sample(model: DiT | Replayed, task: str = "t2v", shape=SHAPE, *, seed: int = 1, batch_cfg: bool = False) -> Tensor:
    """Four steps with guidance by texts of unequal lengths."""
    vision = 7 if task == "i2v" else None
    cond, uncond = condition(seed, glyphs=2, vision=vision), condition(seed + 100, text=5, vision=vision)
    first = initial_noise((*shape[:2], 1, *shape[3:]), seed + 1) if task == "i2v" else None
    return denoise(model, initial_noise(shape, seed), cond, uncond, sigmas(4, 5.0), 6.0, first, batch_cfg=batch_cfg)


@pytest.mark.parametrize(
    ("task", "batch_cfg", "recorder"),
    [
        pytest.param("t2v", True, Traced(), marks=pytest.mark.slow),
        ("t2v", False, Counting()),
        ("i2v", True, Counting()),
        pytest.param("i2v", False, Traced(), marks=pytest.mark.slow),
    ],
)
def test_the_same_bits(task, batch_cfg, recorder):
    dit, branches = golden_dit(), 1 if batch_cfg else 2
    found = sample(Replayed(dit, recorder), task, batch_cfg=batch_cfg)
    assert torch.equal(found, sample(dit, task, batch_cfg=batch_cfg))
    assert (recorder.warm_ups, recorder.recordings, recorder.replays) == (branches, branches, 3 * branches)


def test_the_same_bits_with_a_lora(tmp_path):
    dit = golden_dit()
    plain = sample(dit)
    apply_all(dit, [WeightedLoRA(make_lora(tmp_path / "lora.safetensors", 1), 0.7)])
    found = sample(Replayed(dit, StandIn()))
    assert torch.equal(found, sample(dit))
    assert not torch.allclose(found, plain, atol=1e-2)


def test_several_samples():
    """Those of the same shapes are not recorded again; those of others are, and do not disturb the first."""
    dit, recorder = golden_dit(), Counting()
    model = Replayed(dit, recorder)
    wide = (1, 4, 3, 4, 8)
    for recordings, options in [
        (2, {"seed": 1}),
        (2, {"seed": 2}),
        (4, {"seed": 3, "shape": wide}),
        (6, {"seed": 4, "task": "i2v"}),
        (8, {"seed": 1}),
        (8, {"seed": 5}),
    ]:
        assert torch.equal(sample(model, **options), sample(dit, **options)), options
        assert recorder.recordings == recordings


def test_results_are_not_overwritten_by_later_passes():
    dit = golden_dit()
    model, cond, x = Replayed(dit, StandIn()), condition(1), torch.randn(1, 9, 3, 4, 5)
    levels = [torch.tensor([level]) for level in (900.0, 600.0, 300.0)]
    found = [model(x, level, cond) for level in levels]
    with torch.no_grad():
        assert all(torch.equal(one, dit(x, level, cond)) for one, level in zip(found, levels, strict=True))
    assert all(not torch.equal(one, other) for one, other in pairwise(found))


def test_the_end_of_a_step_of_a_meanflow_model_is_an_input():
    model = VelocityModel(None, meanflow=True)
    model.forward = lambda x, timestep, cond, timestep_r: x[:, :4] * timestep_r
    x, time = torch.ones(1, 9, 1, 2, 2), torch.tensor([800.0])
    recorded = Replayed(model, Traced())
    ends = [torch.tensor([end]) for end in (700.0, 500.0, 300.0)]
    assert [recorded(x, time, condition(1), end).mean().item() for end in ends] == [700, 500, 300]


class Failing(StandIn):
    def __init__(self, inner: RuntimeError, outer: RuntimeError | None = None) -> None:
        self.inner, self.outer = inner, outer

    def record(self, run: Pass) -> Pass:
        try:
            raise self.inner
        finally:
            if self.outer is not None:
                raise self.outer


@pytest.mark.parametrize("outer", [None, RuntimeError("previous error during capture")])
def test_a_pass_that_cannot_be_recorded(outer):
    message = "operation not permitted when stream is capturing\nCUDA kernel errors might be"
    with pytest.raises(UserError, match=r"sample\.cuda_graphs: .*not permitted when stream is capturing\n") as caught:
        sample(Replayed(golden_dit(), Failing(RuntimeError(message), outer)))
    assert caught.value.hint == "set sample.cuda_graphs to false"


def test_the_stream_is_left_if_a_recording_fails(monkeypatch):
    """torch.cuda.graph stays on it then, so that all later work would run there."""
    streams = ["default"]

    @contextmanager
    def stream(name):
        streams.append(name)
        try:
            yield
        finally:
            streams.remove(name)

    class Recording:
        def __init__(self, graph, pool, stream):
            self.stream = stream

        def __enter__(self):
            pass

        def __exit__(self, *error):
            raise RuntimeError("previous error during capture")

    for name, value in {
        "Stream": lambda device: "side",
        "stream": stream,
        "graph": Recording,
        "CUDAGraph": object,
        "graph_pool_handle": lambda: (0, 0),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    during = []
    with pytest.raises(RuntimeError, match="during capture"):
        CudaRecorder(torch.device("cuda", 1)).record(lambda: during.extend(streams))
    assert during == ["default", "side"]
    assert streams == ["default"]


def test_too_little_memory_stays_what_it_is():
    failing = Failing(torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("previous error during capture"))
    with pytest.raises(torch.OutOfMemoryError):
        sample(Replayed(golden_dit(), failing))


@pytest.mark.parametrize(
    ("options", "obstacle"),
    [
        ({"blocks_to_swap": 4}, "blocks_to_swap: 4"),
        ({"context_parallel": 2}, "context_parallel: 2"),
        ({"quantize": "nf4"}, "quantize: nf4"),
        ({"quantize": "int8"}, "quantize: int8"),
        ({"compile": True, "compile_mode": "reduce-overhead"}, "compile_mode: reduce-overhead"),
        ({"compile": True, "compile_backend": "cudagraphs"}, "compile_backend: cudagraphs"),
    ],
)
def test_where_it_has_no_effect_it_is_said(options, obstacle):
    dit, meta = golden_dit(), torch.device("meta")
    assert replayed(dit, SampleSettings(**options, cuda_graphs=True), meta) is dit
    (sentence,) = about_graphs(SampleSettings(**options, cuda_graphs=True))
    assert f"no effect with sample.{obstacle}" in sentence
    assert about_graphs(SampleSettings(**options)) == []


def test_it_is_off_unless_asked_for_and_on_a_cpu():
    dit = golden_dit()
    assert replayed(dit, SampleSettings(), torch.device("meta")) is dit
    assert replayed(dit, SampleSettings(cuda_graphs=True), CPU) is dit
    for options in ({}, {"quantize": "fp8"}, {"compile": True}, {"compile_mode": "reduce-overhead"}):
        settings = SampleSettings(**options, cuda_graphs=True)
        assert isinstance(replayed(dit, settings, torch.device("meta")), Replayed)
        assert about_graphs(settings) == []


def test_the_plan_counts_the_inputs_that_stay():
    size = PassSize(1, (3, 8, 8), 20, i2v=False)
    peaks = []
    for graphs in (False, True):
        settings = make_settings(sample={"cuda_graphs": graphs})
        meter = run_denoising(settings, replace(TINY, num_blocks=2), torch.float32, size, guided=False, gpu=True)
        peaks.append(sum(meter.parts.values()) - meter.parts[WEIGHTS])
    prepared, cells = golden_dit().prepare(empty_condition(TINY, size)), 3 * 8 * 8
    inputs = 4 * (TINY.in_channels * cells + 1) + sum(tensor.nbytes for tensor in prepared.tensors)
    assert peaks[1] - peaks[0] == pytest.approx(inputs, abs=1024)
