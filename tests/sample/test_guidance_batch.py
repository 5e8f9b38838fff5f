"""Both branches of guidance as one batch or one after the other: what decides, and what the file says."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from hv15.records.metadata import MADE_FROM, SAMPLE
from hv15.sample import guidance_batch
from hv15.sample.guidance_batch import BATCHED_TOKENS, Inputs, batches, free_memory, made_by, settled
from hv15.sample.prompts import SampleSpec
from hv15.sample.sampler import sample_latents
from hv15.units import GIB
from tests.models.golden_dit import TINY
from tests.sample.conftest import made_from, make_lora, text_item

UNGUIDED = {"guidance_scale": 1.0}
LITTLE, MUCH = (1, 1, BATCHED_TOKENS), (1, 1, BATCHED_TOKENS + 1)


@pytest.mark.parametrize(
    ("setting", "latent", "gpu", "expected"),
    [
        ("auto", LITTLE, True, True),
        ("auto", MUCH, True, False),
        ("auto", LITTLE, False, False),
        ("batched", MUCH, False, True),
        ("batched", LITTLE, True, True),
        ("two_pass", LITTLE, True, False),
        ("by_memory", LITTLE, True, False),
    ],
)
def test_what_is_known_beforehand(setting: Any, latent: tuple[int, int, int], gpu: bool, expected: bool) -> None:
    assert batches(setting, latent, gpu=gpu) == expected


@pytest.mark.parametrize(
    ("needed", "free", "choice", "words"),
    [
        (3 * GIB, 4 * GIB, "batched", "batched: both branches as one batch, as one batch needs 3.0 GiB and 4.0 GiB"),
        (3 * GIB, 3 * GIB, "batched", "3.0 GiB are free"),
        (3 * GIB, 3 * GIB - 1, "two_pass", "two_pass: one branch after the other, as one batch needs 3.0 GiB"),
    ],
)
def test_memory_decides_and_the_log_says_why(
    spec: SampleSpec, needed: int, free: int, choice: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    asked = replace(spec, guidance_batch="by_memory")
    inputs = Inputs(TINY, 9, 100)
    found = settled(asked, inputs, lambda *given: needed if given == (asked, inputs) else 10**15, lambda: free)
    assert found == replace(spec, guidance_batch=choice)
    assert words in caplog.text


def unasked(*_: object) -> int:
    raise AssertionError


@pytest.mark.parametrize(
    "change",
    [{}, *({"guidance_batch": way} for way in ("batched", "two_pass")), {"guidance_batch": "by_memory", **UNGUIDED}],
    ids=str,
)
def test_otherwise_no_memory_is_looked_at(spec: SampleSpec, change: dict[str, Any]) -> None:
    given = replace(spec, **change)
    assert settled(given, Inputs(TINY, 9, 0), unasked, unasked) is given


def test_files_may_say_what_memory_came_to(spec: SampleSpec) -> None:
    assert made_by(spec) == [spec]
    said = {each.guidance_batch for each in made_by(replace(spec, guidance_batch="by_memory"))}
    assert said == {"by_memory", "batched", "two_pass"}


Sampled = Callable[..., tuple[Tensor, dict[str, str]]]


@pytest.fixture
def sample(models: dict[str, Path], tmp_path: Path) -> Sampled:
    """Run the stage; return latents and metadata."""
    count = iter(range(99))

    def run(spec: SampleSpec, **options: Any) -> tuple[Tensor, dict[str, str]]:
        output = tmp_path / f"{next(count)}.latents.safetensors"
        texts = text_item(1, tokens=9, glyphs=3), text_item(2, tokens=4)
        lora = options.pop("lora", None)
        sample_latents(spec, models["dit"], lora, *texts, None, output, made_from=made_from(spec), **options)
        with safe_open(output, "pt") as file:
            return load_file(output)["latents"], file.metadata()

    return run


@pytest.mark.numeric
@pytest.mark.parametrize(("free", "choice"), [(GIB, "batched"), (999, "two_pass")])
def test_a_sample_by_memory_has_the_bytes_of_what_was_chosen(
    spec: SampleSpec, sample: Sampled, free: int, choice: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hv15.sample.sampler.free_memory", lambda device: free)
    lora, asked = make_lora(tmp_path / "lora.safetensors", 1), list[Inputs]()

    def need(of: SampleSpec, inputs: Inputs) -> int:
        assert of.latent_size == spec.latent_size
        asked.append(inputs)
        return 1000

    planned = replace(spec, guidance_batch="by_memory")
    latents, metadata = sample(planned, lora=lora, need=need)
    expected, _ = sample(replace(spec, guidance_batch=choice), lora=lora)
    assert torch.equal(latents, expected)
    assert json.loads(metadata[SAMPLE])["guidance_batch"] == choice
    assert json.loads(metadata[MADE_FROM]) == made_from(planned), "it is not made again"
    assert asked == [Inputs(TINY, 12, lora.stat().st_size)], "decided once; the longer branch has 9 + 3 tokens"


@pytest.mark.numeric
def test_both_ways_are_the_same_up_to_rounding(spec: SampleSpec, sample: Sampled) -> None:
    (one, _), (two, _) = (sample(replace(spec, guidance_batch=way)) for way in ("batched", "two_pass"))
    torch.testing.assert_close(one, two, atol=5e-6, rtol=1e-5)


def test_on_a_cpu_auto_is_two_passes_to_the_bit(spec: SampleSpec, sample: Sampled) -> None:
    assert torch.equal(sample(spec)[0], sample(replace(spec, guidance_batch="two_pass"))[0])


def test_without_a_plan_it_is_two_passes(spec: SampleSpec, sample: Sampled) -> None:
    latents, metadata = sample(replace(spec, guidance_batch="by_memory"))
    assert torch.equal(latents, sample(replace(spec, guidance_batch="two_pass"))[0])
    assert json.loads(metadata[SAMPLE])["guidance_batch"] == "two_pass"


def test_the_free_memory_of_a_cpu_is_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    class Memory:
        available = 12345

    monkeypatch.setattr("psutil.virtual_memory", Memory)
    assert free_memory(torch.device("cpu")) == 12345


def test_the_free_memory_of_a_gpu_is_the_drivers_and_what_torch_holds_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    device, of = torch.device("cuda", 1), list[object]()
    for name, value in {"mem_get_info": (700, 1000), "memory_reserved": 250, "memory_allocated": 200}.items():
        monkeypatch.setattr(torch.cuda, name, lambda given, value=value: (of.append(given), value)[1])
    assert guidance_batch.free_memory(device) == 750
    assert of == [device] * 3
