"""What one batch of both branches needs, as planned, against a sample that is really made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from hv15.config import Settings
from hv15.memory import WEIGHTS, PeakMemory
from hv15.models import DiT
from hv15.models.attention import Attention
from hv15.models.fused_attention import fused_attention
from hv15.plan.devices import FRAGMENTS, Device
from hv15.plan.guidance import batch_need
from hv15.sample.guidance_batch import Inputs
from hv15.sample.prompts import SampleSpec
from hv15.sample.sampling import run
from tests.models.golden_dit import TINY

SMALL = replace(TINY, num_blocks=6, hidden_size=64, num_heads=2, rope_dims=(8, 12, 12))
SPEC = SampleSpec(
    name="a",
    task="t2v",
    prompt="a",
    negative_prompt="",
    height=96,
    width=128,
    frames=9,
    steps=2,
    guidance_scale=6.0,
    flow_shift=5.0,
    seed=1,
    fps=24.0,
    output_type="video",
    dtype="float32",
    quantize="none",
    vae_sample_size=0,
    vae_tile_overlap=0.25,
    variant="480p_t2v",
    lora_multiplier=None,
    image=None,
    loras=(),
    models={},
    guidance_batch="by_memory",
)
TOKENS = 14


def settings(**sample: Any) -> Settings:
    content = {"models": {"source": "demo"}, "runtime": {"device": "cpu"}}
    return Settings.model_validate({**content, "sample": {"fused_kernels": False, **sample}})


def measured(*, batch_cfg: bool) -> int:
    """Bytes that a sample takes beside the weights."""
    dit = DiT(SMALL).requires_grad_(False).eval()
    dit.attention = Attention(lambda q, k, v: fused_attention(q, k, v)[0])  # no scores are kept, as in a kernel
    texts = [{"text": torch.zeros(n, SMALL.text_dim), "glyphs": torch.zeros(0, SMALL.glyph_dim)} for n in (TOKENS, 5)]
    with PeakMemory("cpu") as memory:
        memory.assign(WEIGHTS, dit)
        run(dit, SPEC, *texts, None, None, device=torch.device("cpu"), batch_cfg=batch_cfg)
    return memory.peak - memory.parts[WEIGHTS]


def test_it_is_what_a_sample_takes() -> None:
    planned = batch_need(settings())(SPEC, Inputs(SMALL, TOKENS, 0))
    assert planned == pytest.approx(measured(batch_cfg=True), rel=0.05)
    assert planned > 1.5 * measured(batch_cfg=False)


@pytest.mark.slow
def test_larger_samples_and_loras_need_more() -> None:
    need = batch_need(settings())
    few = replace(SMALL, num_blocks=4)  # which are all run
    plain = need(SPEC, Inputs(few, TOKENS, 0))
    assert need(replace(SPEC, frames=17), Inputs(few, TOKENS, 0)) > 1.4 * plain
    assert need(SPEC, Inputs(few, 10 * TOKENS, 0)) > plain
    assert need(SPEC, Inputs(few, TOKENS, 10**9)) == pytest.approx(10**9 + plain, rel=0.01)
    assert need(replace(SPEC, task="i2v"), Inputs(few, TOKENS, 0)) > plain


def test_on_a_gpu_the_allocators_share_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Device("a GPU", 10**11, None)
    monkeypatch.setattr("hv15.plan.devices.detect_device", lambda name: gpu)
    monkeypatch.setattr("hv15.plan.known_devices.find_rates", lambda device: (None, ""))
    need = batch_need(settings())
    found = need(SPEC, Inputs(SMALL, TOKENS, 0))
    monkeypatch.setattr("hv15.plan.devices.FRAGMENTS", 0.0)
    without = need(SPEC, Inputs(SMALL, TOKENS, 0))
    assert found == pytest.approx((1 + FRAGMENTS) * without, rel=1e-3)


def test_the_settings_of_memory_count() -> None:
    whole = batch_need(settings())(SPEC, Inputs(SMALL, TOKENS, 0))
    cached = batch_need(settings(step_cache={"rule": "taylorcache"}))(SPEC, Inputs(SMALL, TOKENS, 0))
    cells = 3 * 6 * 8
    assert cached - whole == 2 * 3 * cells * SMALL.hidden_size * 4  # three states of each branch's tokens
