"""torch.compile of what blocks compute beside attention: the same numbers, and one compilation for all blocks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from hv15.compiler_errors import of_the_compiler
from hv15.config.sample import SampleSettings
from hv15.lora import LoRANetwork
from hv15.models import DiT
from hv15.models.dit import COMPILED
from hv15.models.ready import reset, set_up
from tests.models.test_activations import lora
from tests.models.weights.test_swap import inputs, model


@pytest.fixture(autouse=True)
def nothing_compiled_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In this process or another: the cache on disk gives out code for more instructions than torch is told to use."""
    monkeypatch.setattr(torch.compiler.config, "force_disable_caches", True)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


class Tracer:
    """A backend that runs what was traced as it is, and counts it: all of torch.compile but the code generator."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> Any:
        self.graphs += 1
        return graph.forward


def step(dit: DiT, network: LoRANetwork) -> dict[str, Tensor]:
    network.zero_grad(set_to_none=True)
    dit(*inputs(dit)).square().mean().backward()
    return {name: each.grad.clone() for name, each in network.named_parameters() if each.grad is not None}


@pytest.mark.slow
def test_training_steps_share_what_was_compiled_for_one_block():
    """Six blocks with a LoRA on each linear layer, in windows; another step seed compiles nothing again."""
    dit = model()
    network = lora(dit)
    dit.gradient_checkpointing, dit.most_tokens = True, 30  # two windows of equal size
    plain, tracer = step(dit, network), Tracer()
    dit.compile_blocks(backend=tracer, dynamic=False)  # type: ignore[arg-type]
    found = step(dit, network)
    assert plain.keys() == found.keys()
    for name, gradient in plain.items():
        assert_close(found[name], gradient, atol=1e-7, rtol=1e-4)
    # With and without gradients, the first block and others; for each block anew there would be 48 at least.
    assert 0 < tracer.graphs <= 5 * len(COMPILED)
    before = tracer.graphs
    network.set_step_seed(6)
    step(dit, network)
    assert tracer.graphs == before


def test_another_backend_and_the_demand_for_whole_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    really = torch.compile

    def recorded(*words: Any, **named: Any) -> Any:
        asked.append(named)
        return really(*words, **named)

    monkeypatch.setattr(torch, "compile", recorded)
    dit = model()
    dit.double_blocks = dit.double_blocks[:1]
    with torch.no_grad():
        plain = dit(*inputs(dit))
        settings = SampleSettings(compile=True, compile_backend="eager", compile_fullgraph=True, compile_dynamic=False)
        set_up(dit, settings, "cpu")
        assert_close(dit(*inputs(dit)), plain, atol=1e-6, rtol=1e-5)
    assert [(each["backend"], each["fullgraph"]) for each in asked] == [("eager", True)] * len(COMPILED)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == len(COMPILED)


def test_a_compilation_that_fails_is_one_sentence() -> None:
    def broken(graph: object, _inputs: object) -> None:
        raise RuntimeError("no working C++ compiler\nand much more")

    with pytest.raises(Exception, match="much more") as raised:
        torch.compile(lambda x: x + 1, backend=broken)(torch.ones(1))
    error = of_the_compiler(raised.value)
    assert error is not None
    assert error.message == "torch.compile failed: RuntimeError: no working C++ compiler"
    assert of_the_compiler(RuntimeError("another")) is None


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="the code generator for CPUs needs a C++ compiler")
def test_the_code_generator_keeps_the_velocity():
    dit = model()
    dit.double_blocks = dit.double_blocks[:2]
    with torch.no_grad():
        plain = dit(*inputs(dit))
        set_up(dit, SampleSettings(compile=True, compile_dynamic=False), "cpu")
        assert all(name in dit.double_blocks[0].__dict__ for name in COMPILED)
        found = dit(*inputs(dit))
        assert_close(found, plain, atol=1e-5, rtol=1e-4)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == len(COMPILED)
        reset(dit)
        assert torch.equal(dit(*inputs(dit)), plain)
